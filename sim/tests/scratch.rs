#![cfg(test)]
//! scratch
#[test]
fn sweep() {
    let from: u64 = option_env!("X").unwrap_or("0").parse().unwrap();
    let args: Vec<String> = std::env::args().collect();
    let _ = args;
    let mut bad = 0;
    for seed in from..from + 64 {
        let out = forebay_sim::run::run_seed(seed, &[], None);
        if let Some(v) = out.violation { bad += 1; println!("{seed} {:?}\n{}", v, out.story.join("\n")); }
        if seed < 5 { println!("{seed} ops {} {:?} {:?} {:?}", out.ops, out.faults, out.marks, out.counts); }
    }
    assert_eq!(bad, 0);
}
