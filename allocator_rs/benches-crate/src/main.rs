//! The extent allocator beside its peers. Prints a table; `--json FILE` writes the figures as well.

mod batch;
mod churn;
mod clock;
mod comb;
mod fragmentation;
mod latency;
mod measure;
mod peers;
mod random;
mod rebuild;
mod report;
mod scenario;
mod sequence;
mod subject;

use std::process::ExitCode;

use serde_json::{Value, json};

const USAGE: &str = "usage: csi-core-allocator-benches [--short] [--only TEXT] [--json FILE]

  --short      fewer workloads, smaller pools: some seconds
  --only TEXT  only workloads whose name, like \"churn 90 % 16 TiB\", contains TEXT
  --json FILE  write the figures to FILE

ns/call is processor time of the thread, net of the workload's own cost, the median over turns: all
allocators of a workload work in turns. p50, p99 and p99.9 are of single calls by the wall clock.";

#[derive(Default)]
struct Options {
    short: bool,
    only: String,
    json: Option<String>,
}

fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => options.short = true,
            "--only" => options.only = arguments.next()?,
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
    let figures = run(&options);
    let Some(path) = options.json else { return ExitCode::SUCCESS };
    match std::fs::write(&path, format!("{figures:#}\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Value {
    let effort = measure::Effort::new(options.short);
    let mut workloads = Vec::new();
    report::print_heading();
    for scenario in scenario::scenarios(options.short) {
        if format!("{} {} TiB", scenario.name, scenario.tib).contains(&options.only) {
            let figures = measure::compare(&scenario, effort);
            let fragmentation = fragmentation::fragmentation(&scenario, effort);
            report::print(&scenario, &figures, &fragmentation);
            workloads.push(report::as_json(&scenario, &figures, &fragmentation));
        }
    }
    let rebuilt = rebuild::rebuild();
    for pool in &rebuilt {
        println!(
            "rebuild of {} runs in {} TiB: {:.1} ms, {:.0} bytes a free run",
            rebuild::RUNS,
            pool.tib,
            pool.milliseconds,
            pool.bytes_per_free_run
        );
    }
    let plain = batch::plain();
    println!(
        "a call {:.1} ns; in a batch {:.1} ns a run to allocate, {:.1} ns to free",
        plain.call, plain.allocate, plain.free
    );
    json!({
        "workloads": workloads,
        "rebuild": rebuilt.iter().map(|pool| json!({
            "tib": pool.tib,
            "extent_bytes": pool.extent_bytes,
            "runs": rebuild::RUNS,
            "free_runs": pool.free_runs,
            "ms": pool.milliseconds,
            "bytes_per_free_run": pool.bytes_per_free_run,
        })).collect::<Vec<_>>(),
        "plain": {
            "call_ns": plain.call,
            "batch_runs": batch::RUNS,
            "batch_allocate_ns_per_run": plain.allocate,
            "batch_free_ns_per_run": plain.free,
        },
    })
}
