//! What images, files and sounds are, as their names, `data:` URLs and first bytes tell.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A media type, and bytes in base64.
pub type Data = (String, String);

/// Extensions of what models take, and their media types.
const TYPES: &[(&str, &str)] = &[
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("bmp", "image/bmp"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("avif", "image/avif"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("svg", "image/svg+xml"),
    ("pdf", "application/pdf"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("rtf", "application/rtf"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("py", "text/x-python"),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
];

/// What bytes that begin so are, where that can be told.
pub fn kind_of_bytes(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "image/tiff",
        [b'%', b'P', b'D', b'F', ..] => "application/pdf",
        [b'f', b'L', b'a', b'C', ..] => "audio/flac",
        [b'O', b'g', b'g', b'S', ..] => "audio/ogg",
        [b'I', b'D', b'3', ..] => "audio/mpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, rest @ ..] => match rest.get(..4)? {
            b"WEBP" => "image/webp",
            b"WAVE" => "audio/wav",
            b"AVI " => "video/x-msvideo",
            _ => return None,
        },
        // The box that says of what brand a file of boxes is (ISO 14496-12).
        [_, _, _, _, b'f', b't', b'y', b'p', rest @ ..] => match rest.get(..4)? {
            b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" => "image/heic",
            b"mif1" | b"msf1" => "image/heif",
            b"avif" | b"avis" => "image/avif",
            _ => return None,
        },
        _ => return None,
    })
}

/// The media type that a URL's or a file's name tells by its extension.
pub fn type_of(name: &str) -> Option<&'static str> {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    let found = TYPES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension));
    found.map(|(_, media_type)| *media_type)
}

/// How names of files of a media type usually end.
pub fn extension_of(media_type: &str) -> Option<&'static str> {
    let found = TYPES
        .iter()
        .find(|(_, known)| known.eq_ignore_ascii_case(media_type));
    found.map(|(extension, _)| *extension)
}

/// A media type without parameters, spelled as it is registered.
fn plain_type(media_type: &str) -> String {
    let bare = media_type.split(';').next().unwrap_or_default();
    match bare.trim().to_ascii_lowercase().as_str() {
        "" => "text/plain".to_owned(),
        "image/jpg" => "image/jpeg".to_owned(),
        other => other.to_owned(),
    }
}

/// What a `data:` URL holds, whose bytes are base64 or escaped by percent signs.
pub fn data_url(url: &str) -> Option<Data> {
    let scheme = url.get(..5)?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let (head, data) = url[5..].split_once(',')?;
    let media_type = plain_type(head);
    let is_base64 = head
        .rsplit(';')
        .next()
        .is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    let data = match is_base64 {
        true => data.to_owned(),
        false => STANDARD.encode(percent_decoded(data)),
    };
    Some(self::data(&media_type, data))
}

/// What base64 is by its first bytes.
fn type_by_bytes(data: &str) -> Option<&'static str> {
    const LOOKED_AT: usize = 16;
    let begun = data.as_bytes().get(..LOOKED_AT)?;
    let begun = STANDARD.decode(begun).ok()?;
    kind_of_bytes(&begun)
}

/// Base64 as its standard has it: in one line, and without the letters of URLs.
fn plain_base64(data: String) -> String {
    let is_odd = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'-' | b'_');
    if !data.as_bytes().iter().any(is_odd) {
        return data;
    }
    let letters = data.chars().filter(|c| !c.is_ascii_whitespace());
    letters
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect()
}

/// Bytes in base64 that are said to be `media_type`.
pub fn data(media_type: &str, data: String) -> Data {
    let data = plain_base64(data);
    let said = plain_type(media_type);
    let may_be_wrong =
        said.starts_with("image/") || matches!(&*said, "application/octet-stream" | "text/plain");
    let found = type_by_bytes(&data).filter(|_| may_be_wrong);
    (found.map_or(said, str::to_owned), data)
}

/// An image that stands where its URL should, as bare base64.
pub fn bare_image(url: &str) -> Option<Data> {
    let is_image = |kind: &str| kind.starts_with("image/");
    type_by_bytes(url)
        .filter(|kind| is_image(kind))
        .map(|kind| data(kind, url.to_owned()))
}

/// The bytes of a text whose escapes by percent signs are undone.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let escaped = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match escaped {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_by_names_and_urls() {
        for (name, media_type) in [
            ("https://x.example/a.PDF?v=1.2#p", Some("application/pdf")),
            ("https://x.example/a.b/photo.jpg", Some("image/jpeg")),
            ("notes.md", Some("text/markdown")),
            ("https://x.example/a.b/photo", None),
            ("https://x.example", None),
            ("", None),
        ] {
            assert_eq!(type_of(name), media_type, "{name}");
        }
        let some = |kind: &str, data: &str| Some((kind.to_owned(), data.to_owned()));
        assert_eq!(
            data_url("data:image/jpg;base64,aGk="),
            some("image/jpeg", "aGk=")
        );
        assert_eq!(
            data_url("DATA:Image/PNG;charset=utf-8;BASE64,aGk="),
            some("image/png", "aGk=")
        );
        assert_eq!(data_url("data:,h%69%"), some("text/plain", "aGkl"));
        assert_eq!(data_url("https://x.example/data:,"), None);
    }
}
