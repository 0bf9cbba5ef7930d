//! Files that came with messages, kept as uploads are.

use bytes::Bytes;

use super::Hub;
use crate::error::ApiError;
use crate::ids;
use crate::model::{Part, Source};
use crate::store::{FileRow, now_micros};

/// Content is kept in pieces of this size.
const PIECE: usize = 1024 * 1024;
const MAX_NAME: usize = 512;

/// A file that is kept, as a part of what somebody said.
pub fn part_of(file_id: String, name: &str, is_image: bool) -> Part {
    let source = Source::FileId { id: file_id };
    match is_image {
        true => Part::Image {
            source,
            detail: None,
        },
        false => Part::File {
            source,
            name: Some(name.to_owned()),
        },
    }
}

/// Whether a media type is a picture's.
pub fn is_picture(media_type: Option<&str>) -> bool {
    media_type.is_some_and(|said| said.starts_with("image/"))
}

impl Hub {
    /// Keeps a file, and answers its id.
    pub async fn keep_file(
        &self,
        tenant_id: &str,
        name: &str,
        media_type: Option<&str>,
        content: Bytes,
    ) -> Result<String, ApiError> {
        let name: String = name
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME)
            .collect();
        let file = FileRow {
            id: ids::mint(ids::Kind::File),
            tenant_id: tenant_id.to_owned(),
            smith_id: None,
            bytes: content.len() as i64,
            filename: name,
            purpose: "user_data".to_owned(),
            media_type: media_type.map(str::to_owned),
            complete: false,
            created_at: now_micros(),
        };
        self.store.begin_file(&file).await?;
        for (number, piece) in content.chunks(PIECE).enumerate() {
            self.store
                .add_file_piece(tenant_id, &file.id, number as i64, piece)
                .await?;
        }
        self.store.complete_file(&file).await?;
        Ok(file.id)
    }
}
