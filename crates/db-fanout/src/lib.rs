//! Databases: many queries at once, transactions, streams of rows.
