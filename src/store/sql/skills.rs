//! Queries: skills, their versions and files.

/// Writes a version with its files.
macro_rules! put_skill_version {
    ($tx:expr, $version:expr, $number:expr, $files:expr) => {{
        let row: SkillVersionRow = sqlx::query_as(
            "INSERT INTO skill_versions (tenant_id, skill_id, version, name, description, \
             front_matter, created_at, manifest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             RETURNING *",
        )
        .bind(&$version.tenant_id)
        .bind(&$version.skill_id)
        .bind($number)
        .bind(&$version.name)
        .bind(&$version.description)
        .bind(&$version.front_matter)
        .bind($version.created_at)
        .bind(&$version.manifest)
        .fetch_one(&mut *$tx)
        .await?;
        for file in $files {
            sqlx::query(
                "INSERT INTO skill_files (tenant_id, skill_id, version, path, content) \
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(&$version.tenant_id)
            .bind(&$version.skill_id)
            .bind($number)
            .bind(&file.path)
            .bind(&file.content)
            .execute(&mut *$tx)
            .await?;
        }
        row
    }};
}

/// How many versions of live agents hold a skill, or one version of it.
macro_rules! skill_uses {
    ($tx:expr, $tenant_id:expr, $skill_id:expr, $version:expr) => {
        sqlx::query_scalar::<_, i64>(
            "SELECT COUNT(*) FROM skill_uses u JOIN agents a ON a.id = u.agent_id \
             WHERE u.tenant_id = $1 AND u.skill_id = $2 AND a.deleted_at IS NULL \
             AND ($3 IS NULL OR u.version = $3)",
        )
        .bind($tenant_id)
        .bind($skill_id)
        .bind($version)
        .fetch_one(&mut *$tx)
        .await?
    };
}

/// Puts the numbers of versions into a draft's references to skills. Yields the draft and what it
/// uses, or the reference that leads nowhere.
macro_rules! freeze_skills {
    ($tx:expr, $agent:expr) => {{
        let mut uses: Vec<(String, i64)> = Vec::new();
        let mut missing = None;
        for reference in &mut $agent.draft.skills {
            let id = reference["skill_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let wanted = $crate::store::WantedVersion::of(&reference["version"]);
            let found: Option<i64> = sqlx::query_scalar(
                "SELECT v.version FROM skills s JOIN skill_versions v ON v.skill_id = s.id \
                 WHERE s.tenant_id = $1 AND s.id = $2 AND s.smith_id = '' \
                 AND (v.version = $3 OR ($3 IS NULL AND ($4 OR v.version = s.default_version))) \
                 ORDER BY v.version DESC LIMIT 1",
            )
            .bind(&$agent.tenant_id)
            .bind(&id)
            .bind(wanted.number())
            .bind(wanted.is_latest())
            .fetch_optional(&mut *$tx)
            .await?;
            match found {
                Some(version) if wanted != $crate::store::WantedVersion::None => {
                    reference["version"] = version.into();
                    uses.push((id, version));
                }
                _ => {
                    missing = Some(id);
                    break;
                }
            }
        }
        uses.sort_unstable();
        uses.dedup();
        match missing {
            Some(id) => Err(id),
            None => Ok(uses),
        }
    }};
}

macro_rules! impl_skills {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl $crate::store::SkillStore for $store {
            async fn insert_skill(
                &self,
                skill: &SkillRow,
                version: &SkillVersionRow,
                files: &[SkillFile],
            ) -> Result<bool> {
                let mut tx = self.write.begin().await?;
                let made = sqlx::query(
                    "INSERT INTO skills (id, tenant_id, smith_id, name, default_version, \
                     latest_version, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                     ON CONFLICT (tenant_id, smith_id, name) DO NOTHING",
                )
                .bind(&skill.id)
                .bind(&skill.tenant_id)
                .bind(&skill.smith_id)
                .bind(&skill.name)
                .bind(skill.default_version)
                .bind(skill.latest_version)
                .bind(skill.created_at)
                .bind(skill.updated_at)
                .execute(&mut *tx)
                .await?;
                if made.rows_affected() == 0 {
                    return Ok(false);
                }
                $crate::store::sql::skills::put_skill_version!(tx, version, version.version, files);
                tx.commit().await?;
                Ok(true)
            }

            async fn add_skill_version(
                &self,
                version: &SkillVersionRow,
                files: &[SkillFile],
                make_default: bool,
            ) -> Result<Option<SkillVersionRow>> {
                let mut tx = self.write.begin().await?;
                let number: Option<i64> = sqlx::query_scalar(
                    "UPDATE skills SET latest_version = latest_version + 1, default_version = \
                     CASE WHEN $3 THEN latest_version + 1 ELSE default_version END, \
                     updated_at = $4 WHERE tenant_id = $1 AND id = $2 RETURNING latest_version",
                )
                .bind(&version.tenant_id)
                .bind(&version.skill_id)
                .bind(make_default)
                .bind(version.created_at)
                .fetch_optional(&mut *tx)
                .await?;
                let Some(number) = number else {
                    return Ok(None);
                };
                let row =
                    $crate::store::sql::skills::put_skill_version!(tx, version, number, files);
                tx.commit().await?;
                Ok(Some(row))
            }

            async fn skill(&self, tenant_id: &str, id: &str) -> Result<Option<SkillRow>> {
                Ok(
                    sqlx::query_as("SELECT * FROM skills WHERE tenant_id = $1 AND id = $2")
                        .bind(tenant_id)
                        .bind(id)
                        .fetch_optional(&self.read)
                        .await?,
                )
            }

            async fn skills(
                &self,
                tenant_id: &str,
                smith_id: Option<&str>,
                slice: &Slice,
            ) -> Result<Vec<SkillRow>> {
                Ok($crate::store::sql::select_slice!(
                    &self.read,
                    "SELECT * FROM skills WHERE tenant_id = ",
                    tenant_id,
                    [(" AND smith_id = ", smith_id)],
                    slice
                ))
            }

            async fn skill_version(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
            ) -> Result<Option<SkillVersionRow>> {
                Ok(sqlx::query_as(
                    "SELECT * FROM skill_versions \
                     WHERE tenant_id = $1 AND skill_id = $2 AND version = $3",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn skill_versions(
                &self,
                tenant_id: &str,
                skill_id: &str,
                after: Option<i64>,
                ascending: bool,
                limit: i64,
            ) -> Result<Vec<SkillVersionRow>> {
                let query = if ascending {
                    "SELECT * FROM skill_versions WHERE tenant_id = $1 AND skill_id = $2 \
                     AND ($3 IS NULL OR version > $3) ORDER BY version LIMIT $4"
                } else {
                    "SELECT * FROM skill_versions WHERE tenant_id = $1 AND skill_id = $2 \
                     AND ($3 IS NULL OR version < $3) ORDER BY version DESC LIMIT $4"
                };
                Ok(sqlx::query_as(query)
                    .bind(tenant_id)
                    .bind(skill_id)
                    .bind(after)
                    .bind(limit)
                    .fetch_all(&self.read)
                    .await?)
            }

            async fn skill_files(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
            ) -> Result<Vec<SkillFile>> {
                Ok(sqlx::query_as(
                    "SELECT path, content FROM skill_files \
                     WHERE tenant_id = $1 AND skill_id = $2 AND version = $3 ORDER BY path",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .fetch_all(&self.read)
                .await?)
            }

            async fn skill_paths(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
            ) -> Result<Vec<(String, i64)>> {
                Ok(sqlx::query_as(
                    "SELECT path, CAST(LENGTH(content) AS BIGINT) FROM skill_files \
                     WHERE tenant_id = $1 AND skill_id = $2 AND version = $3 ORDER BY path",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .fetch_all(&self.read)
                .await?)
            }

            async fn skill_file(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
                path: &str,
            ) -> Result<Option<Vec<u8>>> {
                Ok(sqlx::query_scalar(
                    "SELECT content FROM skill_files WHERE tenant_id = $1 AND skill_id = $2 \
                     AND version = $3 AND path = $4",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .bind(path)
                .fetch_optional(&self.read)
                .await?)
            }

            async fn set_skill_default(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
                now: i64,
            ) -> Result<bool> {
                let done = sqlx::query(
                    "UPDATE skills SET default_version = $3, updated_at = $4 \
                     WHERE tenant_id = $1 AND id = $2 AND EXISTS (SELECT 1 FROM skill_versions v \
                     WHERE v.skill_id = $2 AND v.version = $3)",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .bind(now)
                .execute(&self.write)
                .await?;
                Ok(done.rows_affected() > 0)
            }

            async fn skill_uses(
                &self,
                tenant_id: &str,
                skill_id: &str,
                from: i64,
                to: i64,
            ) -> Result<Vec<SkillUse>> {
                Ok(sqlx::query_as(
                    "SELECT u.version, u.agent_id, u.agent_version FROM skill_uses u \
                     JOIN agents a ON a.id = u.agent_id \
                     WHERE u.tenant_id = $1 AND u.skill_id = $2 AND u.version >= $3 \
                     AND u.version <= $4 AND a.deleted_at IS NULL \
                     ORDER BY u.version, u.agent_id, u.agent_version LIMIT 10000",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(from)
                .bind(to)
                .fetch_all(&self.read)
                .await?)
            }

            async fn delete_skill(&self, tenant_id: &str, id: &str) -> Result<SkillRemoval> {
                let mut tx = self.write.begin().await?;
                let uses = $crate::store::sql::skills::skill_uses!(tx, tenant_id, id, None::<i64>);
                if uses > 0 {
                    return Ok(SkillRemoval::InUse(uses));
                }
                let done = sqlx::query("DELETE FROM skills WHERE tenant_id = $1 AND id = $2")
                    .bind(tenant_id)
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                tx.commit().await?;
                match done.rows_affected() {
                    0 => Ok(SkillRemoval::Missing),
                    _ => Ok(SkillRemoval::Done),
                }
            }

            async fn delete_skill_version(
                &self,
                tenant_id: &str,
                skill_id: &str,
                version: i64,
            ) -> Result<SkillRemoval> {
                let mut tx = self.write.begin().await?;
                // Locks the skill, whose default must not move here meanwhile.
                let default: Option<i64> = sqlx::query_scalar(
                    "UPDATE skills SET latest_version = latest_version \
                     WHERE tenant_id = $1 AND id = $2 RETURNING default_version",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .fetch_optional(&mut *tx)
                .await?;
                match default {
                    None => return Ok(SkillRemoval::Missing),
                    Some(default) if default == version => return Ok(SkillRemoval::Default),
                    Some(_) => {}
                }
                let uses =
                    $crate::store::sql::skills::skill_uses!(tx, tenant_id, skill_id, Some(version));
                if uses > 0 {
                    return Ok(SkillRemoval::InUse(uses));
                }
                let done = sqlx::query(
                    "DELETE FROM skill_versions \
                     WHERE tenant_id = $1 AND skill_id = $2 AND version = $3",
                )
                .bind(tenant_id)
                .bind(skill_id)
                .bind(version)
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                match done.rows_affected() {
                    0 => Ok(SkillRemoval::Missing),
                    _ => Ok(SkillRemoval::Done),
                }
            }
        }
    };
}

pub(in crate::store) use {freeze_skills, impl_skills, put_skill_version, skill_uses};
