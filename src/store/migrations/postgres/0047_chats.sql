-- A turn by the conversation and the message that it came from.
CREATE INDEX queued_turns_chat ON queued_turns (tenant_id, channel, chat) WHERE chat IS NOT NULL;
