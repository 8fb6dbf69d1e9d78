# Everything here is one or two plain commands; nothing needs just. `pip install rust-just` brings it.

# Format, lints, docs.
check:
    cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# All tests.
test:
    cargo test

# The main job.
demo:
    cargo run --release -- demo

# Random scenarios against the reference model.
fuzz seeds="0..500":
    cargo run --release -- fuzz --seeds {{seeds}} -j 2

# A long sweep, for a nightly run; can be stopped and resumed.
soak seeds="0..100000":
    cargo run --release -- fuzz --seeds {{seeds}} --resume -j 2

# One failed seed again.
replay seed:
    cargo run --release -- replay --seed {{seed}}

# An experiment file.
run file:
    cargo run --release -- run {{file}}

# One bench, or all.
bench name="":
    cargo bench {{ if name == "" { "" } else { "--bench " + name } }}

# Rewrites the expected decisions of the policies' text cases.
rewrite:
    cargo test -p forebay-engine --test policy_cases -- --ignored

# What CI runs, nothing else.
ci:
    .ci/run
