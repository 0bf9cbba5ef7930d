//! Each provider's fixtures as frames, and the same frames whatever the reads are.

use bytes::Bytes;
use proptest::prelude::*;
use smithgate::config::ProviderWire;
use smithgate::frame::Frame;
use smithgate::model::provider;
use smithgate::sse::Splitter;

use crate::mock::fixture;
use crate::support::{WIRES, redact};

fn frames(wire: ProviderWire, parts: &[&[u8]]) -> Result<Vec<Frame>, String> {
    let mut splitter = Splitter::new(1 << 20);
    let mut decoder = provider::api(wire).decoder();
    let mut out = Vec::new();
    for part in parts {
        splitter.push(Bytes::copy_from_slice(part));
        while let Some(event) = splitter.next_event().map_err(|e| e.to_string())? {
            decoder.event(&event, &mut out).map_err(|e| e.to_string())?;
        }
    }
    decoder.finish(&mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn fixtures(wire: &str, kind: &str) -> Vec<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut names: Vec<String> = std::fs::read_dir(format!("{root}/tests/fixtures/{wire}"))
        .expect("fixtures")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(kind).map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[test]
fn streams_become_frames() {
    for (name, wire) in WIRES {
        for file in fixtures(name, ".sse") {
            let body = fixture(name, &file, "sse").expect("a fixture");
            let frames = frames(wire, &[&body]);
            insta::assert_snapshot!(
                format!("frames_{name}_{file}"),
                redact(&format!("{frames:#?}"))
            );
        }
    }
}

#[test]
fn whole_answers_become_the_same_kind_of_frames() {
    for (name, wire) in WIRES {
        for file in fixtures(name, ".json") {
            let body = fixture(name, &file, "json").expect("a fixture");
            let frames = provider::api(wire)
                .decode_full(&Bytes::from(body))
                .expect("frames");
            insta::assert_snapshot!(
                format!("whole_{name}_{file}"),
                redact(&format!("{frames:#?}"))
            );
        }
    }
}

/// Ids that the decoder minted differ from one decoding to the next.
fn comparable(frames: &Result<Vec<Frame>, String>) -> String {
    redact(&format!("{frames:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_split_gives_the_same_frames(
        pick in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let all: Vec<(&str, ProviderWire, String)> = WIRES
            .iter()
            .flat_map(|(name, wire)| fixtures(name, ".sse").into_iter().map(|f| (*name, *wire, f)))
            .collect();
        let (name, wire, file) = &all[pick.index(all.len())];
        let body = fixture(name, file, "sse").expect("a fixture");
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
        at.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in at {
            parts.push(&body[from..cut]);
            from = cut;
        }
        parts.push(&body[from..]);
        prop_assert_eq!(comparable(&frames(*wire, &parts)), comparable(&frames(*wire, &[&body])));
    }

    #[test]
    fn broken_streams_never_panic(
        pick in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let (name, wire) = WIRES[pick.index(WIRES.len())];
        for file in fixtures(name, ".sse") {
            let mut body = fixture(name, &file, "sse").expect("a fixture");
            let at = at.index(body.len());
            body[at] = byte;
            let _ = frames(wire, &[&body]);
            body.truncate(at);
            let _ = frames(wire, &[&body]);
        }
    }
}
