//! Forms with files (RFC 7578), as platforms take uploads.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;

use super::outgoing::Outgoing;
use crate::connection::random_text;
use crate::error::ApiError;

/// A form that is being written.
pub struct Form {
    boundary: String,
    body: BytesMut,
}

/// Quotes and ends of lines as browsers write them within quotes.
fn quoted(text: &str) -> String {
    text.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

impl Form {
    /// A form, whose boundary stands in no file but by a chance that never comes.
    pub fn new() -> Result<Self, ApiError> {
        Ok(Self {
            boundary: random_text()?,
            body: BytesMut::new(),
        })
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.begin(&format!("name=\"{}\"", quoted(name)), None);
        self.end(value.as_bytes())
    }

    /// Adds a field that is JSON.
    pub fn json(mut self, name: &str, value: &serde_json::Value) -> Self {
        self.begin(
            &format!("name=\"{}\"", quoted(name)),
            Some("application/json"),
        );
        self.end(value.to_string().as_bytes())
    }

    /// Adds a file.
    pub fn file(mut self, name: &str, file: &Outgoing) -> Self {
        let (name, file_name) = (quoted(name), quoted(&file.name));
        let about = format!("name=\"{name}\"; filename=\"{file_name}\"");
        self.begin(&about, Some(&file.media_type));
        self.end(&file.content)
    }

    /// The whole form, and its media type.
    pub fn finish(mut self) -> Result<(HeaderValue, Bytes), ApiError> {
        let end = format!("--{}--\r\n", self.boundary);
        self.body.put_slice(end.as_bytes());
        let kind = format!("multipart/form-data; boundary={}", self.boundary);
        let kind = HeaderValue::from_str(&kind).map_err(ApiError::internal)?;
        Ok((kind, self.body.freeze()))
    }

    fn begin(&mut self, about: &str, media_type: Option<&str>) {
        let mut head = format!(
            "--{}\r\nContent-Disposition: form-data; {about}\r\n",
            self.boundary
        );
        if let Some(media_type) = media_type {
            head.push_str(&format!("Content-Type: {media_type}\r\n"));
        }
        head.push_str("\r\n");
        self.body.put_slice(head.as_bytes());
    }

    fn end(mut self, content: &[u8]) -> Self {
        self.body.put_slice(content);
        self.body.put_slice(b"\r\n");
        self
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequest, Multipart};

    use super::*;

    #[tokio::test]
    async fn a_form_is_read_as_it_was_meant() {
        let file = Outgoing {
            name: "a\"b\r\nX: 1ä.png".to_owned(),
            media_type: "image/png".to_owned(),
            content: Bytes::from_static(b"\x89PNG\r\n--\r\n"),
        };
        let form = Form::new().expect("a form").field("chat_id", "4\r\n2");
        let (kind, body) = form.file("photo", &file).finish().expect("whole");
        let mut request = http::Request::new(axum::body::Body::from(body));
        request.headers_mut().insert("content-type", kind);
        let mut read = Multipart::from_request(request, &()).await.expect("a form");
        let chat = read.next_field().await.expect("read").expect("a field");
        assert_eq!(chat.name(), Some("chat_id"));
        assert_eq!(chat.text().await.expect("text"), "4\r\n2");
        let photo = read.next_field().await.expect("read").expect("a field");
        assert_eq!(photo.file_name(), Some("a%22b%0D%0AX: 1ä.png"));
        assert_eq!(photo.content_type(), Some("image/png"));
        assert_eq!(photo.bytes().await.expect("bytes"), file.content);
        assert!(read.next_field().await.expect("read").is_none());
    }
}
