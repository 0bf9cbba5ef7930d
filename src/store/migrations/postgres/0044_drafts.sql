-- What a channel shows of the answer to a turn while it is written: JSON of the channel's own; '{}'
-- while it is about to show it for the first time.
ALTER TABLE queued_turns ADD COLUMN draft TEXT COLLATE "C";

-- How often an arrival could not be interpreted; `takings` counts nodes that ended with it.
ALTER TABLE inbound_events ADD COLUMN attempts BIGINT NOT NULL DEFAULT 0;
