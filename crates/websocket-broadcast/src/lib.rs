//! WebSockets: one message to many clients, slow ones among them.
