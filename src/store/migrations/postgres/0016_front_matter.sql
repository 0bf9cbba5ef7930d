-- All that a skill's SKILL.md says in its front matter, as JSON text.
ALTER TABLE skill_versions ADD COLUMN front_matter TEXT NOT NULL DEFAULT '{}';
