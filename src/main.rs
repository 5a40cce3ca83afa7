#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    peer::shell::demo::run(peer::shell::demo::DemoOptions {
        nodes: std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(4),
        port: 9000,
    })
    .await
}
