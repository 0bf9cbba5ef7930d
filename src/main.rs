//! The `smithgate` binary: a thin shell around the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use smithgate::auth::{Mint, MintedScope, SMITH_TOKEN_MAX_SECONDS, Scope, TOKEN_MAX_SECONDS};
use smithgate::config::{Config, LogFormat};
use smithgate::gateway::{Gateway, check_data_dir, write_private};
use smithgate::server::Server;
use smithgate::{demo, prices, store, untrusted};

/// Every request makes and drops some hundred small pieces on whichever worker it is on, which the
/// system's allocator serializes and mimalloc does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is kept takes a moment to be written, however short the drain is to be.
const LEAST_DRAIN: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error>;

/// A self-hosted gateway for AI agents.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// Configuration file [default: config/smithgate.toml, when it exists]
    #[arg(long, short, global = true)]
    config: Option<PathBuf>,
    /// Where the embedded store and generated keys live
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// Address of the plain listener
    #[arg(long, global = true)]
    listen: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Run the gateway with a scripted model inside, and a smith to talk to: no key, no account
    Demo,
    /// Mint a token: for the tenant, or for a smith
    Token(TokenArgs),
    /// Check the configuration and print where it listens
    CheckConfig,
    /// The list of what models cost
    Prices {
        #[command(subcommand)]
        command: PricesCommand,
    },
}

#[derive(Subcommand)]
enum PricesCommand {
    /// Read another list, for the next start: this program's own, or LiteLLM's
    /// model_prices_and_context_window.json
    Refresh {
        /// A URL or a file
        #[arg(long)]
        from: String,
    },
}

#[derive(Args)]
struct TokenArgs {
    /// The tenant (project) [default: the first]
    #[arg(long)]
    tenant: Option<String>,
    /// Mint a smith token for this smith instead of a tenant-admin token
    #[arg(long)]
    smith: Option<String>,
    /// Mint a key of the organization, which manages projects, instead of a tenant's token
    #[arg(long, conflicts_with_all = ["tenant", "smith"])]
    organization: bool,
    /// Permissions of a smith token, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "runs:read,runs:write")]
    permissions: Vec<String>,
    /// Lifetime in seconds [default: none for admin, 24 hours for a smith]
    #[arg(long)]
    ttl: Option<i64>,
    /// A name to find it by
    #[arg(long)]
    name: Option<String>,
}

fn main() -> ExitCode {
    // A child of the sandbox reads no configuration and starts no thread that it does not need.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(untrusted::SUBCOMMAND) {
        return untrusted::run_child(args.next());
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smithgate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let mut overrides = Vec::new();
    if let Some(dir) = &cli.common.data_dir {
        overrides.push(("data_dir", dir.to_string_lossy().into_owned()));
    }
    if let Some(listen) = &cli.common.listen {
        overrides.push(("server.listen", listen.clone()));
    }
    let config = Config::load(cli.common.config.as_deref(), &overrides)?;
    let command = cli.command.unwrap_or(Command::Serve);
    if !matches!(
        command,
        Command::CheckConfig | Command::Token(_) | Command::Prices { .. }
    ) {
        start_log(&config);
    }
    let workers = match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve => serve(config).await,
            Command::Demo => run_demo(config).await,
            Command::Token(args) => token(config, args).await,
            Command::Prices {
                command: PricesCommand::Refresh { from },
            } => {
                let (list, file) = prices::refresh(&config, &from).await?;
                println!("{} models, as of {}", list.models.len(), list.as_of);
                println!("written to {}", file.display());
                if config.prices.rate().is_none() {
                    println!("they count once prices.usd_rate is set");
                }
                Ok(())
            }
            Command::CheckConfig => {
                println!("listens on {}", config.server.listen);
                if let Some(tls) = &config.server.tls {
                    println!("listens on {} (TLS)", tls.listen);
                }
                let store = config
                    .store
                    .url
                    .as_deref()
                    .map_or("SQLite", |_| "PostgreSQL");
                println!("keeps its data in {store}");
                println!("the configuration is valid");
                Ok(())
            }
        }
    });
    // All that had to be kept is kept; what still computes cannot be ended, and is not waited for.
    runtime.shutdown_background();
    ended
}

fn start_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log.filter);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let listen = config.server.listen;
    let drain_time = Duration::from_secs(config.server.drain_timeout_s);
    check_data_dir(&config)?;
    let (gateway, first) = Gateway::start(config).await?;
    let server = Server::start(gateway).await?;
    if let Some(first) = first {
        println!(
            "This is the first start. The tenant is {}.",
            first.tenant_id
        );
        println!(
            "Its admin token, shown once and kept nowhere:\n\n{}\n",
            first.admin_token
        );
    }
    println!("smithgate listens on http://{listen}/v1");
    stopped(drain_time).await?;
    println!("draining");
    server.stop().await;
    Ok(())
}

async fn run_demo(mut config: Config) -> Result<(), Failure> {
    let demo = demo::start(&mut config).await?;
    let listen = config.server.listen;
    let drain_time = Duration::from_secs(config.server.drain_timeout_s);
    let data_dir = config.data_dir.clone();
    check_data_dir(&config)?;
    let (gateway, first) = Gateway::start(config).await?;
    let token_file = data_dir.join("demo.token");
    let token = match first {
        Some(first) => {
            write_private(&token_file, first.admin_token.as_bytes())?;
            first.admin_token
        }
        None => std::fs::read_to_string(&token_file).map_err(|e| {
            format!(
                "{} is no data directory of a demo ({e}); choose another with --data-dir",
                data_dir.display()
            )
        })?,
    };
    let smith = demo::smith(&gateway).await?;
    let server = Server::start(gateway).await?;
    println!(
        "{}",
        demo::greeting(
            &listen.to_string(),
            &token_file.display().to_string(),
            &token,
            &smith
        )
    );
    stopped(drain_time).await?;
    server.stop().await;
    drop(demo);
    Ok(())
}

async fn token(config: Config, args: TokenArgs) -> Result<(), Failure> {
    let (gateway, first) = Gateway::start(config).await?;
    if let Some(first) = first {
        eprintln!(
            "This is the first start; the first admin token:\n{}",
            first.admin_token
        );
    }
    let tenant = match &args.tenant {
        Some(id) => store::TenantStore::tenant(gateway.store.as_ref(), id).await?,
        None => gateway.store.first_tenant().await?,
    };
    let tenant = tenant.ok_or("there is no such tenant")?;
    let longest = if args.smith.is_some() {
        SMITH_TOKEN_MAX_SECONDS
    } else {
        TOKEN_MAX_SECONDS
    };
    if args.ttl.is_some_and(|ttl| !(1..=longest).contains(&ttl)) {
        return Err(format!("--ttl must be 1 to {longest}").into());
    }
    if args.organization {
        let organization = smithgate::gateway::organization(gateway.store.as_ref()).await?;
        let (_, key) = gateway
            .auth
            .mint_organization_key(&organization.id, args.ttl, args.name)
            .await
            .map_err(|e| e.to_string())?;
        println!("{key}");
        gateway.drain().await;
        return Ok(());
    }
    let scope = match args.smith {
        None => MintedScope::Admin,
        Some(smith_id) => {
            if gateway.store.smith(&tenant.id, &smith_id).await?.is_none() {
                return Err(format!("the tenant has no smith {smith_id}").into());
            }
            let mut scopes = Vec::new();
            for name in &args.permissions {
                let scope: Scope = name
                    .parse()
                    .map_err(|()| format!("no permission '{name}'"))?;
                scopes.push(scope);
            }
            MintedScope::Smith {
                smith_id,
                scopes: scopes.into_iter().collect(),
            }
        }
    };
    let ttl_seconds = match &scope {
        MintedScope::Smith { .. } => Some(args.ttl.unwrap_or(SMITH_TOKEN_MAX_SECONDS)),
        MintedScope::Admin => args.ttl,
    };
    let minted = gateway
        .auth
        .mint(Mint {
            tenant_id: tenant.id,
            scope,
            ttl_seconds,
            name: args.name,
        })
        .await?;
    println!("{}", minted.token);
    gateway.drain().await;
    Ok(())
}

/// Waits for SIGTERM or Ctrl-C, on a thread of its own: work that holds all others must not keep the
/// signal from being seen. From then on the process ends within `drain_time`, whatever runs.
async fn stopped(drain_time: Duration) -> Result<(), Failure> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let heard = runtime.and_then(|runtime| runtime.block_on(signal()));
        let is_heard = heard.is_ok();
        let _ = tell.send(heard);
        if is_heard {
            std::thread::sleep(drain_time.max(LEAST_DRAIN));
            eprintln!("smithgate: what was under way did not end in time");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)?;
    Ok(told.await??)
}

async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            result = tokio::signal::ctrl_c() => result,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
