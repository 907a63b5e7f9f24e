//! The command line. Exit codes: 0 ok, 1 failed, 2 usage or configuration error.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Config;
use crate::config::yaml::Problem;

/// Says which node will run out of what, and when, before it happens.
///
/// Without a command it runs: it watches this host and the BEAM nodes of this user, keeps their history in
/// ./forewarn-data and serves http://127.0.0.1:9797.
#[derive(Debug, Parser)]
#[command(name = "forewarn", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs (the same as no command).
    Run(RunArgs),
    /// Prints every error of a configuration file, with line and nearest key.
    CheckConfig(CheckArgs),
    /// Runs SQL over the history of a running forewarn, or with --data over a directory.
    Query(crate::query::QueryArgs),
}

/// Flags of `run`; they win over the configuration file.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE", env = "FOREWARN_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory [default: ./forewarn-data]
    #[arg(long, value_name = "DIR", env = "FOREWARN_DATA")]
    data: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:9797]
    #[arg(long, value_name = "ADDR", env = "FOREWARN_LISTEN")]
    listen: Option<SocketAddr>,
    /// Parts that this process runs; on the embedded log that is all of them
    #[arg(long, value_name = "ROLES", value_delimiter = ',', value_enum, default_values_t = Role::ALL)]
    roles: Vec<Role>,
    /// Shape of the log lines on standard error
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// A part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Collect,
    Store,
    Analyze,
    Alert,
    Api,
}

impl Role {
    const ALL: [Self; 5] = [Self::Collect, Self::Store, Self::Analyze, Self::Alert, Self::Api];
}

/// Text for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Configuration file (YAML)
    file: PathBuf,
    /// Shape of the answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Parses the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => run(&cli.run),
        Some(Command::Run(args)) => run(&args),
        Some(Command::CheckConfig(args)) => check_config(&args),
        Some(Command::Query(args)) => finish(crate::query::run(&args)),
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("forewarn: {e:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(args: &RunArgs) -> ExitCode {
    crate::telemetry::init(args.output == Output::Json);
    if let Some(missing) = Role::ALL.iter().find(|r| !args.roles.contains(r)) {
        eprintln!(
            "forewarn: --roles leaves out {missing:?}: roles are split over Kafka only, which this version does not have yet"
        );
        return ExitCode::from(USAGE);
    }
    match load(args) {
        Ok(config) => {
            let source = args.config.clone();
            finish(crate::run::run(config, source, |fresh| load_from(args, fresh)))
        }
        Err(problems) => {
            print_problems(args.config.as_deref(), &problems);
            ExitCode::from(USAGE)
        }
    }
}

fn load(args: &RunArgs) -> Result<Config, Vec<Problem>> {
    let config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    load_from(args, config)
}

/// Applies the flags, which win over the file.
fn load_from(args: &RunArgs, mut config: Config) -> Result<Config, Vec<Problem>> {
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    config.validated()
}

fn check_config(args: &CheckArgs) -> ExitCode {
    let problems = Config::read(&args.file).and_then(Config::validated).err().unwrap_or_default();
    if args.output == Output::Json {
        let list: Vec<_> = problems
            .iter()
            .map(|p| serde_json::json!({"line": p.line, "column": p.column, "message": p.message}))
            .collect();
        println!("{}", serde_json::json!({"file": args.file, "problems": list}));
    } else if problems.is_empty() {
        println!("{}: ok", args.file.display());
    } else {
        print_problems(Some(&args.file), &problems);
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
}

fn print_problems(file: Option<&std::path::Path>, problems: &[Problem]) {
    for p in problems {
        match file {
            Some(file) => eprintln!("{}:{p}", file.display()),
            None => eprintln!("forewarn: {p}"),
        }
    }
}
