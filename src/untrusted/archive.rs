//! The files of a zip, within bounds that are counted on what comes out.

use std::collections::HashSet;
use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};

/// What a zip may hold.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Bounds {
    /// Of all files together, unpacked.
    pub bytes: usize,
    pub files: usize,
}

/// The files of a zip, or why they are not taken, in words.
pub fn unpacked(content: &[u8], bounds: &Bounds) -> Result<Vec<(String, Vec<u8>)>, String> {
    let broken = |e: zip::result::ZipError| format!("the zip cannot be read: {e}");
    let mut archive = zip::ZipArchive::new(Cursor::new(content)).map_err(broken)?;
    // Folders have entries too.
    if archive.len() > bounds.files * 4 {
        return Err(format!(
            "the zip has more than {} entries",
            bounds.files * 4
        ));
    }
    let (mut files, mut left) = (Vec::new(), bounds.bytes);
    let mut places = HashSet::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(broken)?;
        let path = entry.name().map_err(broken)?.into_owned();
        if entry.is_symlink() {
            return Err(format!("'{path}' is a link, not a file"));
        }
        if entry.is_dir() {
            continue;
        }
        if files.len() >= bounds.files {
            return Err(format!("there are more than {} files", bounds.files));
        }
        // Two entries may share their bytes, which is how a small zip becomes a large one.
        if !places.insert(entry.data_start()) {
            return Err(format!("'{path}' overlaps another file of the zip"));
        }
        let mut file = Vec::new();
        // What an entry says of its size may be a lie.
        let limit = left as u64 + 1;
        (&mut entry)
            .take(limit)
            .read_to_end(&mut file)
            .map_err(|e| format!("'{path}' cannot be read: {e}"))?;
        left = left
            .checked_sub(file.len())
            .ok_or_else(|| format!("the files have more than {} bytes, unpacked", bounds.bytes))?;
        files.push((path, file));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 1000,
        files: 3,
    };

    fn zip(files: &[(&str, usize)]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (path, size) in files {
            let options = zip::write::SimpleFileOptions::default();
            match path.strip_suffix('@') {
                Some(link) => zip
                    .add_symlink(link, "/etc/passwd", options)
                    .expect("added"),
                None => {
                    zip.start_file(*path, options).expect("begun");
                    zip.write_all(&vec![b'a'; *size]).expect("written");
                }
            }
        }
        zip.finish().expect("finished").into_inner()
    }

    #[test]
    fn what_comes_out_is_counted() {
        let files = unpacked(&zip(&[("a", 400), ("d/b", 500)]), &BOUNDS).expect("files");
        assert_eq!(files[1], ("d/b".to_owned(), vec![b'a'; 500]));
        for (files, why) in [
            (&[("a", 600), ("b", 600)][..], "bytes"),
            (&[("a", 1_000_000)], "bytes"),
            (&[("a", 1), ("b", 1), ("c", 1), ("d", 1)], "files"),
            (&[("a@", 0)], "link"),
        ] {
            let refused = unpacked(&zip(files), &BOUNDS).expect_err("refused");
            assert!(refused.contains(why), "{refused}");
        }
        assert!(unpacked(b"PK\x03\x04 broken", &BOUNDS).is_err());
    }
}
