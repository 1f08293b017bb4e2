# Short names for the steps of CI: `just test` is `.ci/run test`.

# everything that CI runs
ci:
    .ci/run

# formatting and lints, with warnings denied
lint:
    .ci/run format lint

# every recipe's tests, with the points that each sweep tried
test:
    .ci/run test

# PostgreSQL, NATS and Redis until Ctrl-C; prints their URLs
services:
    cargo run --package support --features services --bin services

# recipes on a model of tokio that chooses who runs next
interleavings:
    .ci/run interleavings

# each recipe copied into an empty project with exactly its features, and all at once
alone:
    .ci/run alone

# what would make a green run hollow
check:
    .ci/run check

# the book, into target/book
book:
    .ci/run book

# run the examples again and renew their pictures and outputs in the book
generate:
    cargo xtask generate

# every benchmark with its peers and floors; renews docs/benchmarks
bench:
    cargo bench --package benches

# the same jobs in asyncio, on this machine, in one call
bench-python:
    cargo bench --package benches -- python
