//! `peer top`: the cluster in a terminal, live from the stream of its events; or once, as plain text, for pipes.

mod draw;
mod picture;
mod screen;

use super::client::{Client, with_query};
use super::console::Console;
use super::error::CliError;
use super::events::Lines;
use clap::Args;
use picture::Picture;
use screen::{Key, Screen};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

const EXAMPLES: &str = "\
Examples:
  peer top
  peer top --once                         the same as plain text, for a pipe
  peer -H unix:///tmp/peer.sock top       as another agent sees it";

/// What the agent is asked again for at the latest: usage and ages move without an event.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A burst of events is drawn so often, not with each.
const DRAW_EVERY: Duration = Duration::from_millis(50);
/// What happens at the same time is looked at together.
const SETTLE: Duration = Duration::from_millis(150);
/// An agent that went away is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How far back the events reach at the start, in seconds.
const EVENTS_BEFORE: i64 = 15 * 60;

/// Watch nodes, services, tasks and rollouts
///
/// Keys: Tab and Shift-Tab choose a part, Enter makes it fill the screen, arrows and Page keys scroll it, q ends it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Print it once, as plain text
    #[arg(long)]
    once: bool,
}

pub async fn top(args: &TopArgs, client: &Client, console: &mut Console) -> Result<(), CliError> {
    if args.once {
        let picture = look(client).await?;
        return console.print(&picture.plain(console.now()));
    }
    if !console.terminal {
        return Err(CliError::new("there is no terminal to draw on").hint("print it once with: peer top --once"));
    }
    // Before the terminal is taken, so that an agent that isn't there is told in plain words.
    let picture = look(client).await?;
    let mut screen = Screen::take()?;
    let result = watch(client, console, &mut screen, picture).await;
    screen.give_back();
    result
}

async fn look(client: &Client) -> Result<Picture, CliError> {
    let status = client.get("/peer/status").await?;
    let nodes = client.get("/nodes").await?;
    let services = client.get("/services?status=true").await?;
    let tasks = client.get("/tasks").await?;
    let current = r#"{"_up-to-date":{"true":true}}"#;
    let current = client.get(&with_query("/tasks", &[("filters", current)])).await?;
    Ok(Picture::new(status, &nodes, &services, &tasks, &current))
}

async fn listen(client: &Client, since: i64) -> Result<Lines, CliError> {
    let since = since.to_string();
    let parameters = [("filters", r#"{"scope":{"swarm":true}}"#), ("since", since.as_str())];
    Lines::open(client, &with_query("/events", &parameters)).await
}

/// The cluster as it is now; and its events from `since` on, where they are wanted and come.
async fn look_again(client: &Client, since: Option<i64>) -> Result<(Picture, Option<Lines>), CliError> {
    let picture = look(client).await?;
    let events = match since {
        Some(since) => listen(client, since).await.ok(),
        None => None,
    };
    Ok((picture, events))
}

async fn watch(client: &Client, console: &Console, screen: &mut Screen, mut picture: Picture) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::new(format!("can't listen for signals: {error}"));
    let mut ended = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(failed)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut events: Option<Lines> = None;
    let mut since = console.now().as_second() - EVENTS_BEFORE;
    // An agent that hangs must not make the keyboard hang: looking is one of several things that are waited for.
    let mut looking = None;
    let mut next_look = Instant::now();
    let mut state = draw::State::default();
    let mut next_draw = Instant::now();
    loop {
        let due = Instant::now() >= next_draw;
        if due {
            screen.draw(&picture, &mut state, console.now())?;
            next_draw = Instant::now() + DRAW_EVERY;
        }
        tokio::select! {
            () = sleep_until(next_draw), if !due => {}
            _ = ended.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            key = screen.key() => match key {
                Some(Key::Quit) | None => return Ok(()),
                Some(Key::Resized) => next_draw = Instant::now(),
                Some(Key::Pressed(key)) => {
                    state.press(key);
                    next_draw = Instant::now();
                }
            },
            event = next_event(&mut events) => match event {
                Some(event) => {
                    picture.happened(&event);
                    next_look = next_look.min(Instant::now() + SETTLE);
                }
                // The agent has gone; looking again tells when it is back.
                None => {
                    events = None;
                    since = console.now().as_second();
                }
            },
            () = sleep_until(next_look), if looking.is_none() => {
                next_look = Instant::now() + LOOK_EVERY;
                looking = Some(Box::pin(look_again(client, events.is_none().then_some(since))));
            }
            seen = next_look_of(&mut looking) => {
                looking = None;
                match seen {
                    Ok((mut fresh, heard)) => {
                        events = events.or(heard);
                        fresh.keep_events(picture);
                        picture = fresh;
                    }
                    Err(error) => {
                        picture.lost(error.message());
                        next_look = Instant::now() + ASK_AGAIN;
                    }
                }
            }
        }
    }
}

async fn next_look_of<F: Future + Unpin>(looking: &mut Option<F>) -> F::Output {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

async fn next_event(events: &mut Option<Lines>) -> Option<serde_json::Value> {
    match events {
        Some(lines) => lines.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}
