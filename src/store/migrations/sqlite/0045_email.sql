-- E-mail: who a domain belongs to, which conversation a message is of, what came over the wire, and who
-- is not written to any more.
CREATE TABLE email_domains (
    -- Lower case; mail to it is one tenant's.
    domain TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX email_domains_tenant ON email_domains (tenant_id);

CREATE TABLE email_messages (
    tenant_id TEXT NOT NULL,
    -- A digest of its Message-ID.
    id TEXT NOT NULL,
    chat TEXT NOT NULL,
    -- Who wrote it; empty: a smith.
    sender TEXT NOT NULL,
    -- JSON: the addresses that have it, which may answer it.
    people TEXT NOT NULL,
    -- Of what a smith wrote: the message in the outbox.
    outbound_id TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX email_messages_sender ON email_messages (tenant_id, sender, created_at);
CREATE INDEX email_messages_age ON email_messages (created_at);

-- Messages as they came, in pieces.
CREATE TABLE email_pieces (
    tenant_id TEXT NOT NULL,
    -- A digest of the content.
    id TEXT NOT NULL,
    number BIGINT NOT NULL,
    content BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id, number)
);
CREATE INDEX email_pieces_age ON email_pieces (created_at);

CREATE TABLE email_suppressions (
    tenant_id TEXT NOT NULL,
    address TEXT NOT NULL,
    -- bounce or manual.
    reason TEXT NOT NULL,
    detail TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, address)
);
