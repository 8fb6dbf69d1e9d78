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

# Valid bytes of every format, for the fuzzer to begin with.
fuzz-corpus:
    FOREBAY_CORPUS="$PWD/fuzz/corpus" cargo test -p forebay-engine --test decoders valid
    mkdir -p fuzz/corpus/experiment && cp experiments/*.toml fuzz/corpus/experiment

# Every decoder on changed bytes, for so many seconds each: nightly and `cargo install cargo-fuzz`.
fuzz-decoders seconds="60": fuzz-corpus
    for target in block table wal batch manifest experiment; do \
        cargo +nightly fuzz run $target -- -max_total_time={{seconds}} -max_len=16384 || exit 1; \
    done

# Every call of a hundred scripts fails in every way: some CPU minutes.
sweep:
    cargo run --release -- sweep

# A long sweep, for a nightly run, which must meet every rare state; can be stopped and resumed. A million
# seeds: `just soak 0..1000000`.
soak seeds="0..100000":
    cargo run --release -- fuzz --seeds {{seeds}} --all-marks --resume -j 2

# How many of the real bugs in sim/mutants the swarm finds; can be stopped and resumed. 3 CPU minutes for
# each, 10 with `--cpu-s 600`; `--only M01,M02`, `-j 2`.
mutants *args:
    cargo run --release -p forebay-mutants --no-default-features -- {{args}}

# So many processes killed on real files, and judged as simulated crashes are.
real-crashes kills="500":
    FOREBAY_KILLS={{kills}} cargo test -p forebay-sim --test all real_crash -- --nocapture

# One failed seed again.
replay seed:
    cargo run --release -- replay --seed {{seed}}

# An experiment file.
run file:
    cargo run --release -- run {{file}}

# An experiment's results, run again and accepted; what changes is printed.
bless name:
    export FOREBAY_COMMIT="$(git describe --always --dirty)"; \
        cargo run --release -- run experiments/{{name}}.toml --out target/forebay/bless/{{name}} && \
        cargo run --release -- bless target/forebay/bless/{{name}}

# Whether committed tables and figures are what their rows make.
report-check:
    cargo run --release -- report --check results/

# Whether runs of the first seeds still have the committed rows.
raw-check name seeds="0..1":
    cargo run --release -- run results/{{name}}/experiment.toml --only-seeds {{seeds}} --check-raw

# The report page in headless Chromium, which must be installed (Debian: apt-get install chromium).
page-test:
    cargo test -p forebay --test page -- --ignored

# One bench, or all.
bench name="":
    cargo bench {{ if name == "" { "" } else { "--bench " + name } }}

# Rewrites the expected decisions of the policies' text cases.
rewrite:
    cargo test -p forebay-engine --test policy_cases -- --ignored

# Writes what the program prints into the transcripts of the README and docs.
transcripts:
    FOREBAY_TRANSCRIPTS=write cargo test -p forebay --test transcripts

# What CI runs, nothing else.
ci:
    .ci/run
