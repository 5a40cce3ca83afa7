//! Flags of docker's that `peer` knows and refuses by name, with the reason and what to do instead. clap would guess at another
//! flag that looks like them. `docs/compat.md` says the same of the docker CLI, and a test holds this table against it.
//! (`--isolation` stands with the flags that are taken, since `default` is one of its values.)

use super::error::CliError;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

struct Refused {
    /// The commands that docker has them on, or that people would look for them on.
    commands: &'static [&'static str],
    flags: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
}

const BOTH: &[&str] = &["service create", "service update"];

const REFUSED: &[Refused] = &[
    Refused {
        commands: &["node update"],
        flags: &["--role"],
        why: "there are no roles: every node takes every command, and can lead",
        instead: "which one schedules now is in MANAGER STATUS of: peer node ls",
    },
    Refused {
        commands: BOTH,
        flags: &["--credential-spec"],
        why: "this is for containers of Windows",
        instead: "leave it out",
    },
    Refused {
        commands: &["secret create"],
        flags: &["--driver", "-d"],
        why: "drivers of secrets are not supported",
        instead: "give the content itself: peer secret create NAME FILE (- for standard input)",
    },
    // From here on flags of `docker run`, which Swarm's services haven't either.
    Refused {
        commands: &["service update"],
        flags: &["--device"],
        why: "an update edits the list of devices",
        instead: "use --device-add and --device-rm",
    },
    Refused {
        commands: BOTH,
        flags: &["--device-cgroup-rule"],
        why: "a service has no rules for devices that it isn't given",
        instead: "give it the device: --device /dev/ttyUSB0 (--device-add in an update)",
    },
    Refused {
        commands: BOTH,
        flags: &["--ipc", "--pid", "--userns", "--uts", "--cgroupns", "--cgroup-parent"],
        why: "a service can't share the node's namespaces or cgroups",
        instead: "run what needs them outside of the cluster, with docker run on each node",
    },
    Refused {
        commands: BOTH,
        flags: &["--security-opt"],
        why: "a service has the engine's own security profile",
        instead: "set it in the engine's daemon.json on the nodes, and choose them with --constraint",
    },
    Refused {
        commands: BOTH,
        flags: &["--volume", "-v", "--tmpfs"],
        why: "this is a flag of docker run",
        instead: "use --mount type=volume,source=data,target=/data, or type=bind, or type=tmpfs (--mount-add in an update)",
    },
    Refused {
        commands: BOTH,
        flags: &["--restart"],
        why: "this is a flag of docker run",
        instead: "use --restart-condition none, on-failure or any, which is the default",
    },
    Refused {
        commands: BOTH,
        flags: &["--memory", "-m", "--cpus"],
        why: "this is a flag of docker run",
        instead: "use --limit-memory, --limit-cpu, --reserve-memory or --reserve-cpu",
    },
    Refused {
        commands: BOTH,
        flags: &["--link", "--ip", "--mac-address", "--network-alias"],
        why: "this is a flag of docker run",
        instead: "use --network, or --network name=NETWORK,alias=NAME for another name on it (--network-add in an update)",
    },
];

/// Commands of docker's that are called otherwise here, and what people type for them.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "swarm",
        "peer start (with --join to join), peer token, peer leave; docker's own swarm commands work, too: docker -H unix:///SOCKET swarm ...",
    ),
    ("join", "peer start --join HOST --token TOKEN"),
    ("init", "peer start"),
    ("info", "peer status"),
    ("ps", "peer service ps NAME, or peer node ps for what runs on this node"),
    ("services", "peer service ls"),
    ("nodes", "peer node ls"),
    ("delete", "rm"),
];

fn elsewhere(error: &clap::Error) -> Option<CliError> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (_, meant) = ELSEWHERE.iter().find(|(name, _)| name == typed)?;
    Some(CliError::misuse(format!("there is no command {typed:?}")).hint(format!("use: {meant}")))
}

/// What is to be said instead of clap's guess, if the flag or command is a known one of docker's.
pub fn by_name(error: &clap::Error, root: &Command, args: &[OsString]) -> Option<CliError> {
    if error.kind() == ErrorKind::InvalidSubcommand {
        return elsewhere(error);
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidArg) else { return None };
    let command = command_of(root, args);
    let of_it = |refused: &&Refused| refused.commands.contains(&command.as_str());
    let refused = REFUSED.iter().filter(of_it).find(|refused| refused.flags.contains(&typed.as_str()))?;
    Some(CliError::misuse(format!("{typed}: {}", refused.why)).hint(refused.instead))
}

/// The names of the commands as they stand in the arguments, as "service create".
fn command_of(root: &Command, args: &[OsString]) -> String {
    let (mut command, mut names) = (root, Vec::new());
    // Values of flags before the command may be called as a command is; only of these flags there are any.
    const TAKE_VALUES: [&str; 5] = ["-H", "--host", "--tlscacert", "--tlscert", "--tlskey"];
    let mut is_value = false;
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if std::mem::replace(&mut is_value, TAKE_VALUES.contains(&word)) || word.starts_with('-') {
            continue;
        }
        let Some(inner) = command.find_subcommand(word) else { break };
        names.push(inner.get_name());
        command = inner;
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Result<(), CliError> {
        crate::cli::parsed_or_refused(line.split_whitespace().map(OsString::from)).map(|_| ()).map_err(|error| {
            match error {
                Ok(refused) => refused,
                Err(clap) => panic!("{line}: {clap}"),
            }
        })
    }

    /// A line that the command would take, but for the flag.
    fn line(command: &str, flag: &str) -> String {
        let rest = if command.ends_with("create") { "name image" } else { "name" };
        format!("peer -H unix:///s {command} {flag} x {rest}")
    }

    #[test]
    fn every_flag_of_the_table_is_refused_with_the_reason_and_what_to_do() {
        for refused in REFUSED {
            for (command, flag) in refused.commands.iter().flat_map(|c| refused.flags.iter().map(move |f| (c, f))) {
                for line in [line(command, flag), line(command, &format!("{flag}=1"))] {
                    let error = said(&line).unwrap_err();
                    assert_eq!(error.message(), format!("{flag}: {}", refused.why), "{line}");
                    assert_eq!((error.hint_text(), error.code()), (Some(refused.instead), 2), "{line}");
                }
            }
        }
        // Behind the image stands the container's command, and what isn't known of docker is clap's affair.
        assert!(said("peer service create x --link").is_ok());
        let unknown = crate::cli::parsed_or_refused(["peer", "service", "ls", "--link"].map(OsString::from));
        assert!(matches!(unknown, Err(Err(_))));
    }

    #[test]
    fn what_docker_calls_otherwise_is_named_as_it_is_called_here() {
        for (typed, meant) in ELSEWHERE {
            let above = if *meant == "rm" { "service " } else { "" };
            let error = said(&format!("peer {above}{typed}")).unwrap_err();
            assert_eq!(error.message(), format!("there is no command {typed:?}"));
            assert_eq!(error.hint_text(), Some(format!("use: {meant}").as_str()));
        }
    }

    /// The sections of docs/compat.md, but for docker swarm: those are no commands of peer's.
    #[test]
    fn what_compat_md_says_is_refused_is_refused_by_name_here_too() {
        let page = include_str!("../../docs/compat.md");
        let mut seen = 0;
        for section in page.split("\n### docker ").skip(1) {
            let (command, text) = section.split_once('\n').unwrap();
            if command.starts_with("swarm ") {
                continue;
            }
            let text = text.split("\n## ").next().unwrap();
            for row in text.lines().filter(|row| row.starts_with("- refused")) {
                for flag in row.split('`').skip(1).step_by(2).filter(|word| word.starts_with("--")) {
                    seen += 1;
                    let typed = line(command, flag);
                    let parsed = crate::cli::parsed_or_refused(typed.split_whitespace().map(OsString::from));
                    let told = match parsed {
                        Ok(_) => panic!("{typed}: is taken"),
                        Err(Ok(refused)) => refused.message().to_owned(),
                        Err(Err(clap)) => clap.to_string(),
                    };
                    assert!(told.contains(flag) && !told.contains("unexpected argument"), "{typed}: {told}");
                    assert!(!told.contains("similar argument"), "{typed}: {told}");
                }
            }
        }
        assert!(seen >= 6, "the page was understood: {seen} flags");
    }
}
