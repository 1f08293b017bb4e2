//! Fetching politely: clients, bodies, robots.txt, pacing.
