//! `devices`, `privileged`, `shm_size` and GPUs of a Compose file, which Docker's stacks pass over: labels of the service, as
//! [`crate::model::spec::hardware`] reads them.

use super::Report;
use super::field::Field;
use crate::cli::error::CliError;
use crate::cli::go::Bytes;
use crate::model::spec::hardware::{DEVICES, Device, GPUS, Gpus, PRIVILEGED, SHM_SIZE, list as list_of};
use serde_json::Value;

pub fn labels(service: &Field<'_>, report: &mut Report) -> Result<Vec<(String, String)>, CliError> {
    let mut labels = Vec::new();
    if let Some(list) = service.get("devices") {
        let devices = list.items()?.iter().map(|entry| device(entry, report)).collect::<Result<Vec<_>, _>>()?;
        labels.push((DEVICES, list_of(&devices)));
    }
    if let Some(privileged) = service.get("privileged") {
        labels.extend(privileged.truth()?.then(|| (PRIVILEGED, "true".to_owned())));
    }
    if let Some(size) = service.get("shm_size") {
        labels.push((SHM_SIZE, size.parsed::<Bytes>()?.0.to_string()));
    }
    if let Some(gpus) = gpus(service, report)? {
        labels.push((GPUS, gpus));
    }
    Ok(labels.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value)).collect())
}

/// `/dev/a:/dev/b:rwm`, or `{source: /dev/a, target: /dev/b, permissions: rwm}`.
fn device(entry: &Field<'_>, report: &mut Report) -> Result<Device, CliError> {
    if !entry.value.is_object() {
        return entry.text()?.parse().map_err(|why: String| entry.bad(why));
    }
    entry.check(&["source", "target", "permissions"], &[], report)?;
    let text = |key: &str| entry.get(key).map(|value| value.text()).transpose();
    let source = text("source")?.unwrap_or_default();
    let target = text("target")?.unwrap_or_else(|| source.clone());
    let permissions = text("permissions")?.unwrap_or_else(|| "rwm".to_owned());
    format!("{source}:{target}:{permissions}").parse().map_err(|why: String| entry.bad(why))
}

/// `gpus: all`, `gpus: [{count: 2}]`, or the older `deploy.resources.reservations.devices`.
fn gpus(service: &Field<'_>, report: &mut Report) -> Result<Option<String>, CliError> {
    if let Some(gpus) = service.get("gpus") {
        if !gpus.value.is_array() {
            let text = gpus.text()?;
            return text.parse::<Gpus>().map(|_| Some(text)).map_err(|why| gpus.bad(why));
        }
        return one(&gpus, false, report);
    }
    let reserved = ["deploy", "resources", "reservations", "devices"];
    let mut at = Field::of(service.at.clone(), service.value);
    for key in reserved {
        let Some(inner) = at.get(key) else { return Ok(None) };
        at = inner;
    }
    one(&at, true, report)
}

fn one(list: &Field<'_>, must_say: bool, report: &mut Report) -> Result<Option<String>, CliError> {
    let items = list.items()?;
    let [entry] = items.as_slice() else {
        return if items.is_empty() { Ok(None) } else { Err(list.bad("more than one request for devices: want one")) };
    };
    entry.check(&["count", "device_ids", "capabilities"], &["driver", "options"], report)?;
    let capabilities = entry.get("capabilities").map(|list| list.texts()).transpose()?.unwrap_or_default();
    if capabilities.iter().any(|capability| capability != "gpu") || (must_say && capabilities.is_empty()) {
        return Err(entry.bad("capabilities: only [gpu] is supported"));
    }
    let text = match (entry.get("count"), entry.get("device_ids")) {
        (Some(_), Some(_)) => return Err(entry.bad("both count and device_ids: want one of them")),
        (Some(count), None) => match count.value {
            Value::Number(n) if n.as_i64() == Some(-1) => "all".to_owned(),
            _ => count.text()?,
        },
        (None, Some(ids)) => format!("device={}", ids.texts()?.join(",")),
        (None, None) => "all".to_owned(),
    };
    text.parse::<Gpus>().map(|_| Some(text)).map_err(|why| entry.bad(why))
}
