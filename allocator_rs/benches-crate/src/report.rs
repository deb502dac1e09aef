//! The results as a table for people and as JSON for whoever plots them.

use serde_json::{Value, json};

use crate::batch;
use crate::measure::Figures;
use crate::rebuild;
use crate::scenario::Scenario;

pub fn print_heading() {
    println!(
        "{:<16}{:>4}  {:<28}{:>9}{:>9}{:>7}{:>7}{:>10}{:>8}{:>10}{:>9}",
        "workload",
        "TiB",
        "allocator",
        "ns/call",
        "p50",
        "p99",
        "p99.9",
        "failures",
        "used %",
        "free runs",
        "B/run"
    );
}

pub fn print(scenario: &Scenario, peer: &str, floor: f64, figures: Option<&Figures>) {
    print!("{:<16}{:>4}  {peer:<28}", scenario.name, scenario.tib);
    let Some(figures) = figures else {
        println!("  too slow to set up");
        return;
    };
    println!(
        "{:>9.1}{:>9}{:>7}{:>7}{:>10}{:>8.1}{:>10}{:>9}",
        figures.nanoseconds - floor,
        figures.p50,
        figures.p99,
        figures.p999,
        figures.failures,
        figures.used_percent,
        figures.free.runs,
        bytes_a_run(figures).map_or(String::from("-"), |bytes| format!("{bytes:.0}")),
    );
}

pub fn print_rebuild(milliseconds: f64, free_runs: u64) {
    println!("rebuild of {} runs into {free_runs} free runs: {milliseconds:.1} ms", rebuild::RUNS);
}

pub fn print_batch(allocate: f64, free: f64) {
    println!("batch of {} runs: allocate {allocate:.1} ns a run, free {free:.1} ns a run", batch::RUNS);
}

/// One result; times of a call are net of the workload's own.
pub fn as_json(scenario: &Scenario, peer: &str, floor: f64, figures: Option<&Figures>) -> Value {
    let mut row = json!({ "workload": scenario.name, "tib": scenario.tib, "allocator": peer });
    row["figures"] = figures.map_or(Value::Null, |figures| {
        json!({
            "ns_per_call": figures.nanoseconds - floor,
            "floor_ns_per_call": floor,
            "p50_ns": figures.p50,
            "p99_ns": figures.p99,
            "p999_ns": figures.p999,
            "calls": figures.calls,
            "failures_with_space": figures.failures,
            "used_percent": figures.used_percent,
            "free_runs": figures.free.runs,
            "longest_free_run": figures.free.longest,
            "memory_bytes_per_free_run": bytes_a_run(figures),
        })
    });
    row
}

fn bytes_a_run(figures: &Figures) -> Option<f64> {
    let bytes = figures.free.memory_bytes?;
    (figures.free.runs > 0).then(|| bytes as f64 / figures.free.runs as f64)
}
