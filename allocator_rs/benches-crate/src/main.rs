//! The extent allocator beside its peers. Prints a table; `--json FILE` writes the figures as well.

mod batch;
mod churn;
mod clock;
mod latency;
mod measure;
mod peers;
mod random;
mod rebuild;
mod report;
mod scenario;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use measure::{Effort, Figures, measure};
use peers::{CsiCore, Floor, Offset, OffsetByAddress, Peer, RangeAlloc, RoaringNextFit, TwoTrees};
use scenario::{Scenario, scenarios};

const USAGE: &str = "usage: csi-core-allocator-benches [--quick] [--only TEXT] [--peer TEXT] [--json FILE]

  --quick      fewer workloads and calls: under a minute
  --only TEXT  only workloads whose name, like \"churn 90 % 16 TiB\", contains TEXT
  --peer TEXT  only allocators whose name contains TEXT
  --json FILE  write the figures to FILE

ns/call is processor time of the thread, the lower quartile over slices, net of the workload's own cost;
p50, p99 and p99.9 are of single calls by the wall clock; failures are requests that found no place though
as many extents were free.";

struct Options {
    quick: bool,
    only: String,
    peer: String,
    json: Option<String>,
}

fn options() -> Option<Options> {
    let mut options = Options { quick: false, only: String::new(), peer: String::new(), json: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--only" => options.only = arguments.next()?,
            "--peer" => options.peer = arguments.next()?,
            "--json" => options.json = Some(arguments.next()?),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let effort = if options.quick {
        Effort { calls: 400_000, limit: Duration::from_secs(1) }
    } else {
        Effort { calls: 2_000_000, limit: Duration::from_secs(4) }
    };
    let mut rows = Vec::new();
    report::print_heading();
    for scenario in scenarios(options.quick) {
        if format!("{} {} TiB", scenario.name, scenario.tib).contains(&options.only) {
            compare(&scenario, effort, &options.peer, &mut rows);
        }
    }
    let (milliseconds, free_runs) = rebuild::rebuild();
    report::print_rebuild(milliseconds, free_runs);
    let (allocate, free) = batch::batch();
    report::print_batch(allocate, free);
    let Some(path) = options.json else { return ExitCode::SUCCESS };
    let rebuild = json!({ "runs": rebuild::RUNS, "free_runs": free_runs, "ms": milliseconds });
    let batch = json!({ "runs": batch::RUNS, "allocate_ns_per_run": allocate, "free_ns_per_run": free });
    let all = json!({ "load_average": load_average(), "rows": rows, "rebuild": rebuild, "batch": batch });
    match std::fs::write(&path, format!("{all:#}\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(scenario: &Scenario, effort: Effort, chosen: &str, rows: &mut Vec<Value>) {
    let floor = measure::<Floor>(scenario, effort).map_or(0.0, |figures| figures.nanoseconds);
    let mut take = |peer: &str, figures: fn(&Scenario, Effort) -> Option<Figures>| {
        if peer.contains(chosen) {
            let figures = figures(scenario, effort);
            report::print(scenario, peer, floor, figures.as_ref());
            rows.push(report::as_json(scenario, peer, floor, figures.as_ref()));
        }
    };
    take(CsiCore::NAME, measure::<CsiCore>);
    take(Offset::NAME, measure::<Offset>);
    take(OffsetByAddress::NAME, measure::<OffsetByAddress>);
    take(TwoTrees::NAME, measure::<TwoTrees>);
    take(RangeAlloc::NAME, measure::<RangeAlloc>);
    take(RoaringNextFit::NAME, measure::<RoaringNextFit>);
}

/// How busy the machine was: figures taken beside others' work are worth less.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
