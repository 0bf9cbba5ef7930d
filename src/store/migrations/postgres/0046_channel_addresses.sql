-- Where platforms deliver for all tenants to one place: which of a platform's addresses is whose.
CREATE TABLE channel_addresses (
    kind TEXT COLLATE "C" NOT NULL,
    -- In the platform's words: of WhatsApp, the id of a phone number.
    address TEXT COLLATE "C" NOT NULL,
    tenant_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, address),
    FOREIGN KEY (tenant_id, kind) REFERENCES integrations (tenant_id, kind) ON DELETE CASCADE
);
CREATE UNIQUE INDEX channel_addresses_tenant ON channel_addresses (tenant_id, kind);
