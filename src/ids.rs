//! Prefixed, time-sortable ids (`conventions.md`, "Ids, lists, filters").
//!
//! Lives here: minting and checking ids. Imports nothing of ours.

use ulid::Ulid;

/// The kinds of id that this gateway mints, with their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Project,
    Smith,
    Agent,
    Run,
    Thread,
    Token,
    Call,
    Node,
    Key,
    Event,
    Webhook,
    Delivery,
    Customer,
    Conversation,
    Approval,
    Connection,
    Budget,
    Trace,
    Span,
    UsageEvent,
    File,
    Organization,
    OauthState,
    Message,
    McpServer,
    Skill,
    VectorStore,
    VectorBatch,
    Deployment,
    ConnectorClient,
    ConnectorGrant,
}

impl Kind {
    /// The prefix, with its separator.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Project => "proj_",
            Self::Smith => "smt_",
            Self::Agent => "agt_",
            Self::Run => "run_",
            Self::Thread => "thr_",
            Self::Token => "tok_",
            Self::Call => "call_",
            Self::Node => "node_",
            Self::Key => "key_",
            Self::Event => "evt_",
            Self::Webhook => "wh_",
            Self::Delivery => "whd_",
            Self::Customer => "cus_",
            Self::Conversation => "cnv_",
            Self::Approval => "apr_",
            Self::Connection => "con_",
            Self::Budget => "bgt_",
            Self::Trace => "trc_",
            Self::Span => "spn_",
            Self::UsageEvent => "use_",
            Self::File => "file-",
            Self::Organization => "org_",
            Self::OauthState => "oas_",
            Self::Message => "msg_",
            Self::McpServer => "mcp_",
            Self::Skill => "skl_",
            Self::VectorStore => "vs_",
            Self::VectorBatch => "vsfb_",
            Self::Deployment => "dep_",
            Self::ConnectorClient => "occ_",
            Self::ConnectorGrant => "ocg_",
        }
    }
}

/// A new id of `kind`: prefix and a 26-character ULID.
pub fn mint(kind: Kind) -> String {
    let mut id = String::with_capacity(31);
    id.push_str(kind.prefix());
    let mut body = [0u8; ulid::ULID_LEN];
    id.push_str(Ulid::new().array_to_str(&mut body));
    id
}

/// The least id of `kind` that was minted at or after `micros` (since the Unix epoch).
pub fn floor(kind: Kind, micros: i64) -> String {
    let millis = u64::try_from(micros / 1000).unwrap_or(0);
    format!("{}{}", kind.prefix(), Ulid::from_parts(millis, 0))
}

/// A new request id: a bare ULID.
pub fn mint_request_id() -> String {
    Ulid::new().to_string()
}

/// The part of `id` after the prefix of `kind`, when it is one.
pub fn body(kind: Kind, id: &str) -> Option<&str> {
    id.strip_prefix(kind.prefix()).filter(|b| !b.is_empty())
}

/// Whether an id of `kind` was minted by a gateway like this one: its form, and a time at which that
/// can have been. What others mint may look alike, but holds no time.
pub fn is_minted_here(kind: Kind, id: &str) -> bool {
    const FIRST: std::time::Duration = std::time::Duration::from_secs(1_735_689_600);
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    let ulid = body(kind, id).and_then(|body| Ulid::from_string(body).ok());
    let first = std::time::UNIX_EPOCH + FIRST;
    let last = std::time::SystemTime::now() + DAY;
    ulid.is_some_and(|ulid| (first..last).contains(&ulid.datetime()))
}

/// Whether a client's thread id can be kept: 1 to 256 characters, none of them a control
/// character. Thread ids are the caller's own strings.
pub fn is_sane_thread_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 256 && !id.chars().any(char::is_control)
}

/// Whether a client's `X-Request-Id` is kept: 1–128 characters of `[A-Za-z0-9._-]`.
pub fn is_sane_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_keep_their_prefix() {
        let first = mint(Kind::Run);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = mint(Kind::Run);
        assert!(first < second);
        assert_eq!(first.len(), 30);
        assert_eq!(body(Kind::Run, &first).map(str::len), Some(26));
        assert_eq!(body(Kind::Smith, &first), None);
    }

    #[test]
    fn what_others_mint_is_not_ours() {
        assert!(is_minted_here(Kind::File, &mint(Kind::File)));
        assert!(!is_minted_here(Kind::File, &mint(Kind::Run)));
        for other in [
            "file-6F2ksmvXxt4VdoqmHRw6kL",
            "file-7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "file-",
        ] {
            assert!(!is_minted_here(Kind::File, other), "{other}");
        }
    }

    #[test]
    fn request_ids_are_checked() {
        assert!(is_sane_request_id(b"abc-1.2_3"));
        assert!(!is_sane_request_id(b""));
        assert!(!is_sane_request_id(b"a b"));
        assert!(!is_sane_request_id(&[b'a'; 129]));
    }
}
