//! What is spoken with a child: frames of a JSON header and bytes, each with its length before it.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header.
const MAX_HEADER: usize = 1024 * 1024;
/// Longest body: what the node reads of a child, and a child of the node.
pub const MAX_BODY: usize = 96 * 1024 * 1024;

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too long")
}

/// The lengths, or an error when they are beyond their bounds.
fn lengths(begin: [u8; 8]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = begin;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = u32::from_le_bytes([e, f, g, h]) as usize;
    match header <= MAX_HEADER && body <= MAX_BODY {
        true => Ok((header, body)),
        false => Err(too_long()),
    }
}

/// A frame's first part: the lengths and the header. The body follows as it is.
pub fn begin(header: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header)?;
    if header.len() > MAX_HEADER || body.len() > MAX_BODY {
        return Err(too_long());
    }
    let mut frame = Vec::with_capacity(8 + header.len());
    frame.extend((header.len() as u32).to_le_bytes());
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(header);
    Ok(frame)
}

/// Writes a frame, in the child.
pub fn write(to: &mut impl Write, header: &impl Serialize, body: &[u8]) -> io::Result<()> {
    to.write_all(&begin(header, body)?)?;
    to.write_all(body)?;
    to.flush()
}

/// Reads a frame, in the child.
pub fn read<H: DeserializeOwned>(from: &mut impl Read) -> io::Result<(H, Vec<u8>)> {
    let mut begin = [0; 8];
    from.read_exact(&mut begin)?;
    let (header_length, body_length) = lengths(begin)?;
    let mut header = vec![0; header_length];
    from.read_exact(&mut header)?;
    let mut body = vec![0; body_length];
    from.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&header)?, body))
}

/// Reads a frame, in the node. No memory is taken before its bytes have come.
pub async fn read_async<H: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<(H, Vec<u8>)> {
    let mut begin = [0; 8];
    from.read_exact(&mut begin).await?;
    let (header_length, body_length) = lengths(begin)?;
    let mut header = vec![0; header_length];
    from.read_exact(&mut header).await?;
    let mut body = Vec::new();
    (&mut *from)
        .take(body_length as u64)
        .read_to_end(&mut body)
        .await?;
    match body.len() == body_length {
        true => Ok((serde_json::from_slice(&header)?, body)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, &"head", b"body").expect("written");
        write(&mut bytes, &7, b"").expect("written");
        let mut rest = bytes.as_slice();
        let (header, body): (String, _) = read(&mut rest).expect("a frame");
        assert_eq!((header.as_str(), body.as_slice()), ("head", &b"body"[..]));
        let (header, body): (u8, _) = read_async(&mut rest).await.expect("a frame");
        assert_eq!((header, body.len(), rest.len()), (7, 0, 0));
        let cut = &bytes[..bytes.len() - 3];
        let mut cut = &cut[cut.len() - 6..];
        assert!(read_async::<u8>(&mut cut).await.is_err());
        let long = [0xff; 16];
        assert!(read_async::<u8>(&mut &long[..]).await.is_err());
        assert!(read::<u8>(&mut &long[..]).is_err());
    }
}
