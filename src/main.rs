//! Command line, exit code.
fn main() {
    let flags = roomcast::config::Flags { config: std::env::args().skip_while(|a| a != "--config").nth(1).map(Into::into), ..Default::default() };
    let config = roomcast::config::Config::load(&flags, &roomcast::config::Environment::of_process(), roomcast::config::Purpose::Serve).unwrap_or_else(|m| { for m in m { eprintln!("{m}"); } std::process::exit(2) });
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    roomcast::app::run(roomcast::app::Launch { config, pages: vec![], any_port: false, ready: Box::new(|_| {}) }).unwrap();
}
