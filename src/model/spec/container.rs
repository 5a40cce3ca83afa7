//! The container's half of a task: TaskTemplate.ContainerSpec.

use super::files::files;
use super::read::{Field, quoted};
use super::{ContainerSpec, Dns, Hardware, Healthcheck, Mount, MountKind, SpecError, Ulimit, image, template};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The shortest interval, timeout and start period a health check may have, as in Docker.
const MIN_HEALTH_DURATION: Duration = Duration::from_millis(1);

pub(super) fn container(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<ContainerSpec, SpecError> {
    refuse_unsupported(field)?;
    Ok(ContainerSpec {
        image: image_of(&field.at("Image")?)?,
        labels: field.at("Labels")?.text_map()?,
        command: field.at("Command")?.texts()?,
        args: field.at("Args")?.texts()?,
        hostname: hostname(&field.at("Hostname")?)?,
        env: env(&field.at("Env")?)?,
        dir: dir(&field.at("Dir")?)?,
        user: field.at("User")?.some_text()?,
        groups: field.at("Groups")?.words()?,
        tty: field.at("TTY")?.flag()?,
        open_stdin: field.at("OpenStdin")?.flag()?,
        read_only: field.at("ReadOnly")?.flag()?,
        init: field.at("Init")?.some_flag()?,
        mounts: mounts(&field.at("Mounts")?, warnings)?,
        stop_signal: stop_signal(&field.at("StopSignal")?)?,
        stop_grace: field.at("StopGracePeriod")?.some_duration()?,
        healthcheck: healthcheck(&field.at("Healthcheck")?)?,
        hosts: hosts(&field.at("Hosts")?)?,
        dns: dns(&field.at("DNSConfig")?)?,
        sysctls: field.at("Sysctls")?.text_map()?,
        cap_add: field.at("CapabilityAdd")?.words()?,
        cap_drop: field.at("CapabilityDrop")?.words()?,
        ulimits: field.at("Ulimits")?.items()?.iter().map(ulimit).collect::<Result<_, _>>()?,
        oom_score_adj: oom_score_adj(&field.at("OomScoreAdj")?)?,
        files: files(field)?,
        networks: Vec::new(),
        host_network: false,
        hardware: Hardware::default(),
    })
}

/// What would change how the container runs, or how well it is guarded, if we left it out.
fn refuse_unsupported(field: &Field<'_>) -> Result<(), SpecError> {
    let isolation = field.at("Isolation")?;
    if !["", "default"].iter().any(|plain| isolation.text().is_ok_and(|t| t.eq_ignore_ascii_case(plain))) {
        isolation.refuse_if_set("isolation technologies other than \"default\" are")?;
    }
    let privileges = field.at("Privileges")?;
    for (key, what) in [
        ("CredentialSpec", "credential specs are"),
        ("SELinuxContext", "SELinux contexts are"),
        ("Seccomp", "seccomp profiles are"),
        ("AppArmor", "AppArmor modes are"),
        ("NoNewPrivileges", "no-new-privileges is"),
    ] {
        privileges.at(key)?.refuse_if_set(what)?;
    }
    Ok(())
}

fn image_of(field: &Field<'_>) -> Result<String, SpecError> {
    let text = field.text()?;
    if text.is_empty() {
        return Err(field.bad("missing: want an image, as nginx:1.27"));
    }
    match image::problem(text) {
        Some(why) => Err(field.bad(format!("{} is not an image reference: {why}", quoted(text)))),
        None => Ok(text.to_owned()),
    }
}

fn hostname(field: &Field<'_>) -> Result<Option<String>, SpecError> {
    template::check(field.text()?).map_err(|why| field.bad(why))?;
    field.some_text()
}

fn env(field: &Field<'_>) -> Result<Vec<String>, SpecError> {
    for item in field.items()? {
        let text = item.text()?;
        if text.is_empty() || text.starts_with('=') {
            return Err(item.bad(format!("{} has no name: want KEY=VALUE", quoted(text))));
        }
        template::check(text).map_err(|why| item.bad(why))?;
    }
    field.texts()
}

fn dir(field: &Field<'_>) -> Result<Option<String>, SpecError> {
    let text = field.text()?;
    if !text.is_empty() && !text.starts_with('/') {
        return Err(field.bad(format!("{} is not absolute: want a path that begins with /", quoted(text))));
    }
    field.some_text()
}

const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

fn stop_signal(field: &Field<'_>) -> Result<Option<String>, SpecError> {
    let text = field.text()?;
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN+").or(name.strip_prefix("RTMAX-")).and_then(|n| n.parse::<u8>().ok());
    let number = text.parse::<u8>().ok();
    let known = text.is_empty()
        || number.is_some_and(|n| (1..=64).contains(&n))
        || real_time.is_some_and(|n| n <= 30)
        || name == "RTMAX"
        || SIGNALS.contains(&name);
    if known { field.some_text() } else { Err(field.bad(format!("{} is no signal: want SIGTERM or 15", quoted(text)))) }
}

fn healthcheck(field: &Field<'_>) -> Result<Option<Healthcheck>, SpecError> {
    let test = field.at("Test")?;
    let words = test.texts()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _, ..] => {}
        ["NONE", ..] => return Err(test.bad("NONE takes no arguments")),
        ["CMD" | "CMD-SHELL"] => return Err(test.bad("want a command after the first word")),
        [other, ..] => {
            return Err(test.bad(format!("begins with {}: want NONE, CMD or CMD-SHELL", quoted(other))));
        }
    }
    let duration = |key: &str| {
        let field = field.at(key)?;
        let duration = field.some_duration()?.unwrap_or_default();
        if !duration.is_zero() && duration < MIN_HEALTH_DURATION {
            return Err(field.bad(format!("{} ns is too short: want 0 or at least 1 ms", duration.as_nanos())));
        }
        Ok(duration)
    };
    let out = Healthcheck {
        test: words,
        interval: duration("Interval")?,
        timeout: duration("Timeout")?,
        start_period: duration("StartPeriod")?,
        start_interval: duration("StartInterval")?,
        retries: field.at("Retries")?.count_u32()?,
    };
    // One that says nothing is none at all, so that adding or leaving it out replaces no task.
    Ok(Some(out).filter(|h| *h != Healthcheck::default()))
}

/// "IP host [alias...]", where the address may also be Docker's word for the host's own.
fn hosts(field: &Field<'_>) -> Result<Vec<String>, SpecError> {
    for item in field.items()? {
        let text = item.text()?;
        let mut words = text.split_whitespace();
        let address_is_good = words.next().is_some_and(|ip| ip == "host-gateway" || ip.parse::<IpAddr>().is_ok());
        if !address_is_good || words.next().is_none() {
            return Err(item.bad(format!("{}: want IP_ADDRESS HOSTNAME [ALIAS...]", quoted(text))));
        }
    }
    field.texts()
}

fn dns(field: &Field<'_>) -> Result<Dns, SpecError> {
    let servers = field.at("Nameservers")?;
    for item in servers.items()? {
        if item.text()?.parse::<IpAddr>().is_err() {
            return Err(item.bad(format!("{} is not an IP address", quoted(item.text()?))));
        }
    }
    Ok(Dns { servers: servers.texts()?, search: field.at("Search")?.words()?, options: field.at("Options")?.words()? })
}

fn ulimit(field: &Field<'_>) -> Result<Ulimit, SpecError> {
    let name = field.at("Name")?;
    if name.text()?.is_empty() {
        return Err(name.bad("missing: want a limit's name, as nofile"));
    }
    let limit = |key: &str| {
        let field = field.at(key)?;
        match field.some_integer()?.unwrap_or(0) {
            n if n >= -1 => Ok(n),
            n => Err(field.bad(format!("{n} is out of range: want 0 or more, or -1 for no limit"))),
        }
    };
    let (soft, hard) = (limit("Soft")?, limit("Hard")?);
    let soft_is_more = hard != -1 && (soft == -1 || soft > hard);
    if soft_is_more {
        return Err(field.at("Soft")?.bad(format!("{soft} is more than the hard limit {hard}")));
    }
    Ok(Ulimit { name: name.text()?.to_owned(), soft, hard })
}

fn oom_score_adj(field: &Field<'_>) -> Result<i64, SpecError> {
    let value = field.some_integer()?.unwrap_or(0);
    if (-1000..=1000).contains(&value) {
        Ok(value)
    } else {
        Err(field.bad(format!("{value} is out of range: want -1000 to 1000")))
    }
}

fn mounts(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Vec<Mount>, SpecError> {
    let mut targets = BTreeSet::new();
    let mut out = Vec::new();
    for item in field.items()? {
        let mount = mount(&item, warnings)?;
        if !targets.insert(plain_path(&mount.target).join("/")) {
            return Err(item.at("Target")?.bad(format!("{} is mounted twice", quoted(&mount.target))));
        }
        out.push(mount);
    }
    Ok(out)
}

/// The path without doubled slashes, dots and a slash at its end: what makes two targets the same.
fn plain_path(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

fn mount(field: &Field<'_>, warnings: &mut Vec<String>) -> Result<Mount, SpecError> {
    let kind = mount_kind(&field.at("Type")?)?;
    let target = field.at("Target")?;
    let path = target.text()?;
    let has_template = has_template(&target)?;
    if !has_template && !path.starts_with('/') {
        return Err(target.bad(format!("{} is not absolute: want a path that begins with /", quoted(path))));
    }
    if plain_path(path).is_empty() {
        return Err(target.bad("must not be the root directory"));
    }
    volume_texts(field)?;
    Ok(Mount {
        kind,
        source: mount_source(&field.at("Source")?, kind)?,
        target: path.to_owned(),
        read_only: field.at("ReadOnly")?.flag()?,
        options: mount_options(field, kind, warnings)?,
    })
}

fn mount_kind(field: &Field<'_>) -> Result<MountKind, SpecError> {
    let plain = field.text()?.to_ascii_lowercase();
    if matches!(plain.as_str(), "npipe" | "cluster" | "image") {
        return Err(field.bad(format!("mounts of type {plain} are not supported yet: want bind, volume or tmpfs")));
    }
    // Swarm's zero value is bind.
    field.keyword(&[("bind", MountKind::Bind), ("volume", MountKind::Volume), ("tmpfs", MountKind::Tmpfs)])
}

/// One that is understood; what it yields is known when a task is made of it, and judged by the engine.
fn has_template(field: &Field<'_>) -> Result<bool, SpecError> {
    let text = field.text()?;
    template::check(text).map_err(|why| field.bad(why))?;
    Ok(text.contains("{{"))
}

/// Where Docker fills in templates among the options of a volume.
fn volume_texts(mount: &Field<'_>) -> Result<(), SpecError> {
    let options = mount.at("VolumeOptions")?;
    for texts in [options.at("Labels")?, options.at("DriverConfig")?.at("Options")?] {
        for text in texts.text_map()?.values() {
            template::check(text).map_err(|why| texts.bad(why))?;
        }
    }
    Ok(())
}

fn mount_source(field: &Field<'_>, kind: MountKind) -> Result<Option<String>, SpecError> {
    let text = field.text()?;
    if has_template(field)? && kind != MountKind::Tmpfs {
        return field.some_text();
    }
    let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let name_ok = first_ok && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    match kind {
        MountKind::Bind if !text.starts_with('/') => {
            Err(field.bad(format!("{} is not absolute: a bind wants a path on the node", quoted(text))))
        }
        MountKind::Volume if !text.is_empty() && !name_ok => Err(field.bad(format!(
            "{} is not a volume's name: want letters, digits, _ . -, or a mount of type bind for a path",
            quoted(text)
        ))),
        MountKind::Tmpfs if !text.is_empty() => Err(field.bad("a tmpfs has no source: want none")),
        _ => field.some_text(),
    }
}

/// The options of the mount's own type; the engine would refuse those of another.
fn mount_options(
    field: &Field<'_>,
    kind: MountKind,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, serde_json::Value>, SpecError> {
    let own = match kind {
        MountKind::Bind => "BindOptions",
        MountKind::Volume => "VolumeOptions",
        MountKind::Tmpfs => "TmpfsOptions",
    };
    let mut out = BTreeMap::new();
    for key in ["BindOptions", "VolumeOptions", "TmpfsOptions"] {
        let options = field.at(key)?;
        let Some(raw) = options.raw() else { continue };
        if !raw.is_object() {
            return Err(options.bad("want an object"));
        }
        if key == own {
            out.insert(key.to_owned(), raw.clone());
        } else if options.says_something() {
            warnings.push(options.note("ignored: the mount is of another type"));
        }
    }
    Ok(out)
}
