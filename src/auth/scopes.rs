//! The closed list of scopes, in mint order (`observed.md` 1.3), and sets of them.

macro_rules! scopes {
    ($($variant:ident => $name:literal),+ $(,)?) => {
        /// One thing that a smith token may be allowed to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Scope {
            $($variant),+
        }

        impl Scope {
            /// All scopes, in mint order.
            pub const ALL: &'static [Scope] = &[$(Scope::$variant),+];

            /// The wire spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        /// The scopes as types: a handler's signature says which one it takes.
        pub mod scope {
            use super::{AsScope, Scope};

            $(
                #[doc = concat!("`", $name, "`")]
                pub struct $variant;

                impl AsScope for $variant {
                    const SCOPE: Scope = Scope::$variant;
                }
            )+
        }
    };
}

/// A scope as a type.
pub trait AsScope: Send + Sync + 'static {
    const SCOPE: Scope;
}

scopes! {
    RunsRead => "runs:read",
    RunsWrite => "runs:write",
    ConversationsRead => "conversations:read",
    ConversationsWrite => "conversations:write",
    MemoriesRead => "memories:read",
    MemoriesWrite => "memories:write",
    ConnectionsRead => "connections:read",
    ConnectionsWrite => "connections:write",
    DeploymentsRead => "deployments:read",
    DeploymentsWrite => "deployments:write",
    SchedulesRead => "schedules:read",
    SchedulesWrite => "schedules:write",
    ApprovalsRead => "approvals:read",
    ApprovalsWrite => "approvals:write",
    TracesRead => "traces:read",
    TracesWrite => "traces:write",
    UsageRead => "usage:read",
    UsageWrite => "usage:write",
    CustomersRead => "customers:read",
    CustomersWrite => "customers:write",
    FilesRead => "files:read",
    FilesWrite => "files:write",
    VectorStoresRead => "vector_stores:read",
    VectorStoresWrite => "vector_stores:write",
    ModelKeysRead => "model_keys:read",
    ModelKeysWrite => "model_keys:write",
    SkillsRead => "skills:read",
    SkillsWrite => "skills:write",
    EmbeddingsWrite => "embeddings:write",
}

impl std::str::FromStr for Scope {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == name)
            .ok_or(())
    }
}

/// A set of scopes in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScopeSet(u64);

impl ScopeSet {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is in it.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Its members, in mint order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, s| set | 1 << s as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_published_one() {
        assert_eq!(Scope::ALL.len(), 29);
        assert_eq!("runs:write".parse(), Ok(Scope::RunsWrite));
        assert!("tenant:*".parse::<Scope>().is_err());
        let set: ScopeSet = [Scope::RunsRead, Scope::EmbeddingsWrite]
            .into_iter()
            .collect();
        assert!(set.contains(Scope::EmbeddingsWrite) && !set.contains(Scope::RunsWrite));
        assert_eq!(set.iter().count(), 2);
    }
}
