//! What became of things, as rows and answers say it: the words are part of the API.

use std::fmt;

use serde::{Serialize, Serializer};

/// Makes an enum of statuses, each with its word, which is also how the store keeps it.
macro_rules! statuses {
    ($(#[$about:meta])* $name:ident {
        $($(#[$doc:meta])* $status:ident = $word:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $status,)+
        }

        impl $name {
            /// Every word, for filters.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$status => $word,)+
                }
            }

            /// The status of a word.
            pub fn of(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$status),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl From<$name> for String {
            fn from(status: $name) -> Self {
                status.as_str().to_owned()
            }
        }

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name
        where
            str: sqlx::Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <str as sqlx::Type<DB>>::type_info()
            }

            fn compatible(ty: &DB::TypeInfo) -> bool {
                <str as sqlx::Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name
        where
            &'static str: sqlx::Encode<'q, DB>,
        {
            fn encode_by_ref(
                &self,
                buffer: &mut DB::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                sqlx::Encode::<DB>::encode(self.as_str(), buffer)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name
        where
            &'r str: sqlx::Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let word = <&str as sqlx::Decode<DB>>::decode(value)?;
                Self::of(word).ok_or_else(|| {
                    format!("a status that this version does not know: {word}").into()
                })
            }
        }
    };
}

statuses! {
    /// How far a run has come.
    RunStatus {
        Queued = "queued",
        Running = "running",
        Completed = "completed",
        Failed = "failed",
        Cancelled = "cancelled",
        /// A human is waited for.
        PausedForApproval = "paused_for_approval",
        /// The caller is waited for, who runs a tool.
        PausedForTool = "paused_for_tool",
    }
}

impl RunStatus {
    /// Whether its end is still to come, and nobody is waited for.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether someone is waited for.
    pub fn is_paused(self) -> bool {
        matches!(self, Self::PausedForApproval | Self::PausedForTool)
    }

    /// Whether nothing follows.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

statuses! {
    /// What was decided.
    ApprovalStatus {
        Pending = "pending",
        Approved = "approved",
        Rejected = "rejected",
        /// Its run ended before anyone decided.
        Cancelled = "cancelled",
    }
}

statuses! {
    /// What became of an event on its way to a webhook.
    DeliveryStatus {
        Pending = "pending",
        Succeeded = "succeeded",
        /// It is not tried again.
        Dead = "dead",
    }
}

statuses! {
    /// How far a file was taken into a vector store.
    VectorFileStatus {
        InProgress = "in_progress",
        Completed = "completed",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in RunStatus::WORDS {
            let status = RunStatus::of(word).expect("known");
            assert_eq!(status.as_str(), *word);
            assert_eq!(serde_json::json!(status), *word);
            let kinds = [
                status.is_under_way(),
                status.is_paused(),
                status.has_ended(),
            ];
            assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{word}");
        }
        assert_eq!(DeliveryStatus::of("Pending"), None);
    }
}
