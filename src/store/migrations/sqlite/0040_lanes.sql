-- Lanes: the turns that wait for a smith's thread, one after the other. A lane's row is there while
-- any of its turns waits or runs.
CREATE TABLE lanes (
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    -- Who works on it now; empty: nobody.
    node_id TEXT NOT NULL DEFAULT '',
    -- When it is to be looked at; while a node works on it, when that is over.
    due_at BIGINT NOT NULL,
    -- How often it was taken up since a node last said what became of it.
    takings BIGINT NOT NULL DEFAULT 0,
    -- How many turns came since it is there: the place of the last.
    arrived BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, smith_id, thread_id)
);
CREATE INDEX lanes_due ON lanes (tenant_id, due_at);

CREATE TABLE queued_turns (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    -- Its place in the lane.
    place BIGINT NOT NULL,
    -- Which surface it came from, as its run says.
    channel TEXT NOT NULL,
    -- The schedule or deployment.
    source_id TEXT NOT NULL,
    turns TEXT NOT NULL,
    input TEXT NOT NULL,
    context TEXT,
    metadata TEXT,
    actor TEXT NOT NULL,
    -- Where the answer goes; absent: it stays in the thread.
    reply_to TEXT,
    -- The channel's conversation that the answer goes to.
    chat TEXT,
    -- The arrival's own name for its message, by which it may be taken back.
    message TEXT,
    rule TEXT NOT NULL,
    -- The run's id, minted before there is one, so that there is never a second.
    run_id TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX queued_turns_lane ON queued_turns (tenant_id, smith_id, thread_id, place)
    WHERE status IN ('queued', 'running');
CREATE INDEX queued_turns_run ON queued_turns (tenant_id, run_id);
CREATE INDEX queued_turns_ended ON queued_turns (updated_at)
    WHERE status NOT IN ('queued', 'running');

CREATE TABLE schedules (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    name TEXT,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    turns TEXT NOT NULL,
    input TEXT NOT NULL,
    thread_id TEXT,
    enabled BOOLEAN NOT NULL,
    jitter_seconds BIGINT NOT NULL DEFAULT 0,
    -- By the clock of its zone.
    next_fire_at BIGINT,
    -- The same with its jitter; absent: it does not fire.
    due_at BIGINT,
    last_fire_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX schedules_smith ON schedules (tenant_id, smith_id, id);
CREATE INDEX schedules_due ON schedules (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE schedule_fires (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    -- What the clock said.
    due_at BIGINT NOT NULL,
    -- queued or skipped.
    status TEXT NOT NULL,
    -- Fires before it that nobody was there for.
    missed BIGINT NOT NULL DEFAULT 0,
    reason TEXT,
    queued_turn_id TEXT,
    run_id TEXT,
    thread_id TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX schedule_fires_schedule ON schedule_fires (tenant_id, schedule_id, id);
CREATE INDEX schedule_fires_age ON schedule_fires (created_at);
