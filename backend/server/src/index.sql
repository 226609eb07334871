-- The index of runs. It can be thrown away: everything in it is read from the runs' folders.
CREATE TABLE runs (
    id    TEXT PRIMARY KEY,
    -- Bytes of the journal that this row was read from.
    bytes INTEGER NOT NULL,
    -- The run as the API lists it, as JSON.
    info  TEXT NOT NULL,
    -- What a list says of its summary, as JSON.
    figures TEXT NOT NULL
);
PRAGMA user_version = 4;
