-- Runs and the journal of their events.
-- A run's row repeats what lists need (status, last_seq, summary), so that a list never reads the journal.
CREATE TABLE runs (
    id       TEXT    NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    preset   TEXT    NOT NULL,
    seed     INTEGER NOT NULL,
    status   TEXT    NOT NULL CHECK (status IN ('running', 'finished', 'cancelled', 'failed', 'interrupted')),
    created  INTEGER NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT 0,
    message  TEXT    NOT NULL DEFAULT '',
    config   TEXT    NOT NULL,
    summary  TEXT
) STRICT;

CREATE INDEX runs_by_creation ON runs (created DESC, id DESC);

-- The primary key forbids a sequence number twice; that there is no gap follows from runs.last_seq being advanced in the
-- transaction that inserts.
CREATE TABLE events (
    run  TEXT    NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq  INTEGER NOT NULL CHECK (seq > 0),
    time INTEGER NOT NULL,
    body TEXT    NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT;
