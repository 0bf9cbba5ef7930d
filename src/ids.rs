//! Prefixed, time-sortable ids (`conventions.md`, "Ids, lists, filters").
//!
//! Lives here: minting and checking ids. Imports nothing of ours.
//!
//! A body is the 128 bits of a ULID (48 of time, 80 random) in base58 of a fixed width: clients take
//! a string for an id by that form. Its alphabet is in ASCII order, so that the order of bytes is the
//! order of time. Bodies were the 26 letters of a ULID once; those ids stay valid, and since they
//! begin with `0`, which is no letter of base58, they sort before all that came after.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    InboundEvent,
    QueuedTurn,
    Outbound,
    Schedule,
    Fire,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 36] = [
        Self::Project,
        Self::Smith,
        Self::Agent,
        Self::Run,
        Self::Thread,
        Self::Token,
        Self::Call,
        Self::Node,
        Self::Key,
        Self::Event,
        Self::Webhook,
        Self::Delivery,
        Self::Customer,
        Self::Conversation,
        Self::Approval,
        Self::Connection,
        Self::Budget,
        Self::Trace,
        Self::Span,
        Self::UsageEvent,
        Self::File,
        Self::Organization,
        Self::OauthState,
        Self::Message,
        Self::McpServer,
        Self::Skill,
        Self::VectorStore,
        Self::VectorBatch,
        Self::Deployment,
        Self::ConnectorClient,
        Self::ConnectorGrant,
        Self::InboundEvent,
        Self::QueuedTurn,
        Self::Outbound,
        Self::Schedule,
        Self::Fire,
    ];

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
            Self::File => "file_",
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
            Self::InboundEvent => "iev_",
            Self::QueuedTurn => "dlv_",
            Self::Outbound => "out_",
            Self::Schedule => "sch_",
            Self::Fire => "fire_",
        }
    }
}

/// In ASCII order.
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Letters that hold 128 bits.
const BODY: usize = 22;
/// The most letters whose numbers fit into 64 bits: one long division yields that many.
const LETTERS_AT_ONCE: usize = 10;
/// What files' ids began with when their bodies were ULIDs.
const OLD_FILE_PREFIX: &str = "file-";

/// A new id of `kind`: prefix and body.
pub fn mint(kind: Kind) -> String {
    with_body(kind, Ulid::new())
}

fn with_body(kind: Kind, bits: Ulid) -> String {
    let mut id = String::with_capacity(kind.prefix().len() + BODY);
    id.push_str(kind.prefix());
    push_body(&mut id, bits);
    id
}

fn push_body(id: &mut String, bits: Ulid) {
    let mut body = [0u8; BODY];
    let mut rest = bits.0;
    for letters in body.rchunks_mut(LETTERS_AT_ONCE) {
        let many = u128::from(58u64.pow(LETTERS_AT_ONCE as u32));
        let mut piece = (rest % many) as u64;
        rest /= many;
        for letter in letters.iter_mut().rev() {
            *letter = ALPHABET[(piece % 58) as usize];
            piece /= 58;
        }
    }
    id.extend(body.iter().map(|letter| char::from(*letter)));
}

/// The id of `kind` with the body of another id: of what there is once for each of the other.
pub fn beside(kind: Kind, of: Kind, id: &str) -> String {
    format!("{}{}", kind.prefix(), body(of, id).unwrap_or(id))
}

/// The id of `kind` that belongs to `seed`, with the time of another id: the same each time.
pub fn derived(kind: Kind, with_time_of: &str, seed: &str) -> String {
    let body = with_time_of.rsplit_once('_').map_or("", |(_, body)| body);
    let bits = bits_of(body).or_else(|| Ulid::from_string(body).ok());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, seed.as_bytes());
    let mut random = [0; 16];
    random.copy_from_slice(&digest.as_ref()[..16]);
    let time = bits.map_or(0, |bits| bits.timestamp_ms());
    with_body(kind, Ulid::from_parts(time, u128::from_be_bytes(random)))
}

/// The least ids of `kind` that were minted at or after a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// The least of today's form.
    pub new: String,
    /// The least of the old form; all of `new` are above it.
    pub old: String,
}

/// The least ids of `kind` that were minted at or after `micros` (since the Unix epoch).
pub fn floor(kind: Kind, micros: i64) -> Floor {
    let bits = Ulid::from_parts(u64::try_from(micros / 1000).unwrap_or(0), 0);
    let prefix = match kind {
        Kind::File => OLD_FILE_PREFIX,
        _ => kind.prefix(),
    };
    Floor {
        new: with_body(kind, bits),
        old: format!("{prefix}{bits}"),
    }
}

/// Above all ids of `kind` that have the old form, and below all others.
pub fn end_of_old(kind: Kind) -> String {
    with_body(kind, Ulid::nil())
}

/// A new request id: a bare body.
pub fn mint_request_id() -> String {
    let mut id = String::with_capacity(BODY);
    push_body(&mut id, Ulid::new());
    id
}

/// The part of `id` after the prefix of `kind`, when it is one.
pub fn body(kind: Kind, id: &str) -> Option<&str> {
    let body = match (id.strip_prefix(kind.prefix()), kind) {
        (None, Kind::File) => id.strip_prefix(OLD_FILE_PREFIX),
        (body, _) => body,
    };
    body.filter(|b| !b.is_empty())
}

/// Whether an id was surely minted by a gateway: its form is of one, and so is the time in it. Ids of
/// others, such as a provider's, can begin with the same prefix.
pub fn is_minted_here(kind: Kind, id: &str) -> bool {
    const FIRST: Duration = Duration::from_secs(1_735_689_600);
    const DAY: Duration = Duration::from_secs(86_400);
    let bits = match id.strip_prefix(kind.prefix()).and_then(bits_of) {
        Some(bits) => Some(bits),
        None => body(kind, id).and_then(|body| Ulid::from_string(body).ok()),
    };
    let times = UNIX_EPOCH + FIRST..SystemTime::now() + DAY;
    bits.is_some_and(|bits| times.contains(&bits.datetime()))
}

/// The bits of a body of today's form.
fn bits_of(body: &str) -> Option<Ulid> {
    let mut bits = 0u128;
    for letter in body.bytes() {
        let digit = ALPHABET.binary_search(&letter).ok()?;
        bits = bits.checked_mul(58)?.checked_add(digit as u128)?;
    }
    (body.len() == BODY).then_some(Ulid(bits))
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
        assert_eq!(first.len(), 26);
        assert_eq!(body(Kind::Run, &first).map(str::len), Some(22));
        assert_eq!(body(Kind::Smith, &first), None);
        assert_eq!(mint_request_id().len(), 22);
    }

    #[test]
    fn all_ids_have_the_form_that_clients_know() {
        for kind in Kind::ALL {
            let id = mint(kind);
            let (prefix, body) = id.split_once('_').expect("a prefix");
            // The contract names two kinds with shorter prefixes.
            let short = matches!(kind, Kind::Webhook | Kind::VectorStore);
            let letters = if short { 2..=2 } else { 3..=5 };
            assert!(letters.contains(&prefix.len()), "{id}");
            assert!(prefix.bytes().all(|b| b.is_ascii_lowercase()), "{id}");
            assert!((21..=22).contains(&body.len()), "{id}");
            assert!(body.bytes().all(|b| ALPHABET.contains(&b)), "{id}");
        }
    }

    #[test]
    fn ids_of_the_old_form_come_before_all_others_and_stay_valid() {
        for kind in Kind::ALL {
            let past = floor(kind, 1_795_000_000_000_000);
            let far = floor(kind, 4_000_000_000_000_000);
            assert!(past.old < far.old && far.old < past.new && past.new < far.new);
            assert!(far.old < end_of_old(kind) && end_of_old(kind) < past.new);
            assert!(mint(kind) > past.new && mint(kind) < far.new);
            assert_eq!(body(kind, &past.old).map(str::len), Some(26));
        }
        let old = "run_01KAY2V1V2Z8V6T2J1P3M4N5Q6";
        assert_eq!(body(Kind::Run, old), Some(&old[4..]));
        assert_eq!(body(Kind::File, "file-01KAY2"), Some("01KAY2"));
        assert_eq!(body(Kind::File, "file_1C"), Some("1C"));
    }

    proptest::proptest! {
        #[test]
        fn a_body_is_its_bits_in_order(one: u128, other: u128) {
            let (mut first, mut second) = (String::new(), String::new());
            push_body(&mut first, Ulid(one));
            push_body(&mut second, Ulid(other));
            proptest::prop_assert_eq!(bits_of(&first), Some(Ulid(one)));
            proptest::prop_assert_eq!(first.len(), BODY);
            proptest::prop_assert_eq!(first.cmp(&second), one.cmp(&other));
        }
    }

    #[test]
    fn ids_of_others_are_told_apart() {
        assert!(is_minted_here(Kind::File, &mint(Kind::File)));
        assert!(!is_minted_here(Kind::File, &mint(Kind::Run)));
        let old = floor(Kind::File, 1_790_000_000_000_000).old;
        assert!(old.starts_with("file-") && is_minted_here(Kind::File, &old));
        for other in [
            "file-6F2ksmvXxt4VdoqmHRw6kL",
            "file_6F2ksmvXxt4VdoqmHRw6kL",
            "file_zzzzzzzzzzzzzzzzzzzzzz",
            "file-7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "file_1Ch",
            "file-",
            "file_",
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
