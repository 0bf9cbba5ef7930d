-- Lanes: the turns that wait for a smith's thread, one after the other. A lane's row is there while
-- any of its turns waits or runs.
CREATE TABLE lanes (
    tenant_id TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    thread_id TEXT COLLATE "C" NOT NULL,
    -- Who works on it now; empty: nobody.
    node_id TEXT COLLATE "C" NOT NULL DEFAULT '',
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
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    thread_id TEXT COLLATE "C" NOT NULL,
    -- Its place in the lane.
    place BIGINT NOT NULL,
    -- Which surface it came from, as its run says.
    channel TEXT COLLATE "C" NOT NULL,
    -- The schedule or deployment.
    source_id TEXT COLLATE "C" NOT NULL,
    turns TEXT COLLATE "C" NOT NULL,
    input TEXT COLLATE "C" NOT NULL,
    context TEXT COLLATE "C",
    metadata TEXT COLLATE "C",
    actor TEXT COLLATE "C" NOT NULL,
    -- Where the answer goes; absent: it stays in the thread.
    reply_to TEXT COLLATE "C",
    -- The channel's conversation that the answer goes to.
    chat TEXT COLLATE "C",
    -- The arrival's own name for its message, by which it may be taken back.
    message TEXT COLLATE "C",
    rule TEXT COLLATE "C" NOT NULL,
    -- The run's id, minted before there is one, so that there is never a second.
    run_id TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX queued_turns_lane ON queued_turns (tenant_id, smith_id, thread_id, place)
    WHERE status IN ('queued', 'running');
CREATE INDEX queued_turns_run ON queued_turns (tenant_id, run_id);
CREATE INDEX queued_turns_ended ON queued_turns (updated_at)
    WHERE status NOT IN ('queued', 'running');

CREATE TABLE schedules (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C",
    cron TEXT COLLATE "C" NOT NULL,
    timezone TEXT COLLATE "C" NOT NULL,
    turns TEXT COLLATE "C" NOT NULL,
    input TEXT COLLATE "C" NOT NULL,
    thread_id TEXT COLLATE "C",
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
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    schedule_id TEXT COLLATE "C" NOT NULL,
    -- What the clock said.
    due_at BIGINT NOT NULL,
    -- queued or skipped.
    status TEXT COLLATE "C" NOT NULL,
    -- Fires before it that nobody was there for.
    missed BIGINT NOT NULL DEFAULT 0,
    reason TEXT COLLATE "C",
    queued_turn_id TEXT COLLATE "C",
    run_id TEXT COLLATE "C",
    thread_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL
);
CREATE INDEX schedule_fires_schedule ON schedule_fires (tenant_id, schedule_id, id);
CREATE INDEX schedule_fires_age ON schedule_fires (created_at);
