//! The results as a table for people and as JSON for whoever plots them.

use serde_json::{Value, json};

use crate::fragmentation::Fragmentation;
use crate::measure::{Figures, PEERS};
use crate::scenario::Scenario;

pub fn print_heading() {
    println!(
        "{:<16}{:>4}  {:<28}{:>9}{:>16}{:>7}{:>7}{:>8}{:>8}{:>10}{:>7}",
        "workload",
        "TiB",
        "allocator",
        "ns/call",
        "quartiles",
        "p50",
        "p99",
        "p99.9",
        "used %",
        "free runs",
        "B/run"
    );
}

pub fn print(scenario: &Scenario, figures: &[Figures], fragmentation: &[Fragmentation]) {
    for (peer, _) in PEERS {
        print!("{:<16}{:>4}  {peer:<28}", scenario.name, scenario.tib);
        let Some(figures) = figures.iter().find(|figures| figures.peer == peer) else {
            println!("  too slow to set up");
            continue;
        };
        println!(
            "{:>9.1}{:>16}{:>7}{:>7}{:>8}{:>8.1}{:>10}{:>7}",
            figures.nanoseconds,
            format!("{:.1} - {:.1}", figures.quartiles.0, figures.quartiles.1),
            figures.p50,
            figures.p99,
            figures.p999,
            figures.used_percent,
            figures.free.runs,
            bytes_a_run(figures).map_or(String::from("-"), |bytes| format!("{bytes:.0}")),
        );
    }
    for sum in fragmentation {
        println!(
            "{:<22}{:<28}{:>9} of {} requests failed with space free, {} free runs",
            "", sum.peer, sum.failures, sum.requests, sum.free_runs
        );
    }
}

/// All about one workload.
pub fn as_json(scenario: &Scenario, figures: &[Figures], fragmentation: &[Fragmentation]) -> Value {
    json!({
        "name": scenario.name,
        "tib": scenario.tib,
        "allocators": figures.iter().map(|figures| (figures.peer.into(), speed(figures))).collect::<serde_json::Map<_, _>>(),
        "fragmentation": fragmentation.iter().map(|sum| (sum.peer.into(), json!({
            "requests": sum.requests,
            "failures_with_space": sum.failures,
            "free_runs": sum.free_runs,
        }))).collect::<serde_json::Map<_, _>>(),
    })
}

fn speed(figures: &Figures) -> Value {
    json!({
        "ns_per_call": figures.nanoseconds,
        "lower_quartile_ns": figures.quartiles.0,
        "upper_quartile_ns": figures.quartiles.1,
        "p50_ns": figures.p50,
        "p99_ns": figures.p99,
        "p999_ns": figures.p999,
        "calls": figures.outcome.calls,
        "used_percent": figures.used_percent,
        "free_runs": figures.free.runs,
        "longest_free_run": figures.free.longest,
        "memory_bytes_per_free_run": bytes_a_run(figures),
    })
}

fn bytes_a_run(figures: &Figures) -> Option<f64> {
    let bytes = figures.free.memory_bytes?;
    (figures.free.runs > 0).then(|| bytes as f64 / figures.free.runs as f64)
}
