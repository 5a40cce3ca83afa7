//! `--publish`: docker's short form (`9000:5000/udp`, `8080-8082:80-82`) and long form (`published=9000,target=5000`), which
//! takes our mesh's options, too (`protocol=http,sticky=source`): they become a label of the service.

use super::csv;
use crate::cli::json::{Object, child, number, put, put_nonzero, text};
use crate::model::spec::PortOptions;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub target: u16,
    /// 0: any.
    pub published: u16,
    pub protocol: String,
    pub mode: String,
    /// Whether the mode was said; for `--publish-rm`, where unsaid means either.
    pub mode_given: bool,
    /// What it asks of the mesh.
    pub options: PortOptions,
}

/// One flag can name a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub Vec<Port>);

impl std::str::FromStr for Ports {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('=') { long(text).map(|port| Self(vec![port])) } else { short(text).map(Self) }
    }
}

fn long(text: &str) -> Result<Port, String> {
    let mut port = Port {
        target: 0,
        published: 0,
        protocol: "tcp".to_owned(),
        mode: "ingress".to_owned(),
        mode_given: false,
        options: PortOptions::default(),
    };
    let mut options = Vec::new();
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?}: want key=value"))?;
        let value = value.trim().to_ascii_lowercase();
        match key.trim().to_ascii_lowercase().as_str() {
            "target" => port.target = number_of("target", &value)?,
            "published" => port.published = number_of("published", &value)?,
            "protocol" if ["http", "h2c"].contains(&value.as_str()) => options.push(format!("protocol={value}")),
            "protocol" => port.protocol = protocol(&value)?,
            key @ ("sticky" | "prefer" | "proxy-protocol") => options.push(format!("{key}={value}")),
            "mode" if ["ingress", "host"].contains(&value.as_str()) => (port.mode, port.mode_given) = (value, true),
            "mode" => return Err(format!("invalid mode {value:?}: want ingress or host")),
            other => {
                return Err(format!(
                    "unknown field {other:?}: want target, published, protocol, mode, sticky, prefer or proxy-protocol"
                ));
            }
        }
    }
    port.options = PortOptions::parse(&options.join(","))?;
    if port.options != PortOptions::default() && port.mode == "host" {
        return Err("a port in host mode is the container's own: the mesh's options have no effect on it".to_owned());
    }
    if port.target == 0 {
        return Err("the field target is missing: it is the port inside the container".to_owned());
    }
    Ok(port)
}

fn short(text: &str) -> Result<Vec<Port>, String> {
    let (numbers, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(&proto.to_ascii_lowercase())?;
    let parts: Vec<&str> = numbers.split(':').collect();
    let (published, target) = match parts.as_slice() {
        [target] => (None, range(target)?),
        [published, target] => (Some(*published).filter(|p| !p.is_empty()).map(range).transpose()?, range(target)?),
        _ => return Err("an address to publish on is not supported: a published port answers on every node".to_owned()),
    };
    let port = |published, target| Port {
        target,
        published,
        protocol: protocol.clone(),
        mode: "ingress".to_owned(),
        mode_given: false,
        options: PortOptions::default(),
    };
    let Some(published) = published else {
        return Ok(target.map(|target| port(0, target)).collect());
    };
    match (published.clone().count(), target.clone().count()) {
        (a, b) if a == b => Ok(published.zip(target).map(|(published, target)| port(published, target)).collect()),
        (_, 1) => Ok(published.map(|published| port(published, *target.start())).collect()),
        (a, b) => Err(format!("{a} published ports don't fit {b} target ports")),
    }
}

fn protocol(text: &str) -> Result<String, String> {
    if ["tcp", "udp", "sctp"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "invalid protocol {text:?}: want tcp, udp or sctp; http and h2c in the long form: protocol=http,published=80,target=5000"
    ))
}

fn number_of(what: &str, text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("invalid {what} port {text:?}: want a number up to 65535"))
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let wanted = |text: &str| format!("invalid port {text:?}: want a number from 1 to 65535");
    let number = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(|| wanted(text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("invalid range {text:?}: it ends before it begins"));
    }
    Ok(first..=last)
}

impl Port {
    pub fn json(&self) -> Value {
        let mut port = Object::new();
        put(&mut port, "Protocol", self.protocol.as_str());
        put(&mut port, "TargetPort", self.target);
        put_nonzero(&mut port, "PublishedPort", self.published.into());
        put(&mut port, "PublishMode", self.mode.as_str());
        Value::Object(port)
    }

    /// The label that its options stand in.
    pub fn label(&self) -> String {
        PortOptions::label(self.published, self.target)
    }

    /// Puts its options among the service's labels; none are no label.
    pub fn put_options(&self, spec: &mut Object) {
        let options = self.options.to_string();
        if options.is_empty() {
            drop_options(spec, &self.label());
        } else {
            put(child(spec, "Labels"), &self.label(), options);
        }
    }

    /// Whether `--publish-rm` of this one means that entry of a spec: by target, protocol and, if said, mode; and by
    /// the published port if one was said.
    pub fn removes(&self, entry: &Value) -> bool {
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        number(entry, "/TargetPort") == u64::from(self.target)
            && or(text(entry, "/Protocol"), "tcp") == self.protocol
            && (!self.mode_given || or(text(entry, "/PublishMode"), "ingress") == self.mode)
            && (self.published == 0 || number(entry, "/PublishedPort") == u64::from(self.published))
    }
}

/// Takes a label away, if it is there.
pub fn drop_options(spec: &mut Object, label: &str) {
    if let Some(Value::Object(labels)) = spec.get_mut("Labels") {
        labels.remove(label);
    }
}

/// The label of an entry of a spec.
pub fn label_of(entry: &Value) -> String {
    let port = |at: &str| u16::try_from(number(entry, at)).unwrap_or_default();
    PortOptions::label(port("/PublishedPort"), port("/TargetPort"))
}

/// What a port that the agent tells of asks of the mesh: as its service's labels have it.
pub fn options_of(service: &Value, published: u64, target: u64) -> Option<String> {
    let label = |published: u64| {
        let (published, target) = (u16::try_from(published).ok()?, u16::try_from(target).ok()?);
        let labels = service.pointer("/Spec/Labels")?.as_object()?;
        labels.get(&PortOptions::label(published, target))?.as_str().map(str::to_owned)
    };
    label(published).or_else(|| label(0)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ports(text: &str) -> Result<Vec<(u16, u16, String, String)>, String> {
        text.parse()
            .map(|ports: Ports| ports.0.into_iter().map(|p| (p.published, p.target, p.protocol, p.mode)).collect())
    }

    fn ingress(published: u16, target: u16, protocol: &str) -> (u16, u16, String, String) {
        (published, target, protocol.to_owned(), "ingress".to_owned())
    }

    #[test]
    fn short_forms() {
        assert_eq!(ports("9000:5000").unwrap(), [ingress(9000, 5000, "tcp")]);
        assert_eq!(ports("53:53/udp").unwrap(), [ingress(53, 53, "udp")]);
        assert_eq!(ports("5000").unwrap(), [ingress(0, 5000, "tcp")]);
        assert_eq!(ports("8080-8081:80-81").unwrap(), [ingress(8080, 80, "tcp"), ingress(8081, 81, "tcp")]);
        assert_eq!(ports("8080-8081:80").unwrap(), [ingress(8080, 80, "tcp"), ingress(8081, 80, "tcp")]);
        for bad in ["", "0:80", "80:0", "70000:80", "a:b", "80/icmp", "127.0.0.1:80:80", "80-81:90-99", "81-80:1"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_forms() {
        let host = (9002, 5000, "tcp".to_owned(), "host".to_owned());
        assert_eq!(ports("mode=host,published=9002,target=5000,protocol=tcp").unwrap(), [host]);
        assert_eq!(ports("target=80").unwrap(), [ingress(0, 80, "tcp")]);
        for bad in ["published=80", "target=80,mode=mesh", "target=80,colour=red", "target=x"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_meshs_options_become_a_label() {
        let port = |text: &str| text.parse::<Ports>().map(|ports| ports.0[0].clone());
        let http = port("published=80,target=8080,protocol=http,prefer=local").unwrap();
        assert_eq!((http.protocol.as_str(), http.label().as_str()), ("tcp", "peer.port.80"));
        let mut spec = Object::new();
        http.put_options(&mut spec);
        port("target=9,sticky=source").unwrap().put_options(&mut spec);
        let labels = json!({ "peer.port.80": "protocol=http,prefer=local", "peer.port.target.9": "sticky=source" });
        assert_eq!(spec["Labels"], labels);
        let told = json!({ "Spec": { "Labels": labels } });
        assert_eq!(options_of(&told, 80, 8080).as_deref(), Some("protocol=http,prefer=local"));
        assert_eq!(options_of(&told, 30_000, 9).as_deref(), Some("sticky=source"));
        assert_eq!(options_of(&told, 81, 8080), None);
        port("80:8080").unwrap().put_options(&mut spec);
        assert_eq!(spec["Labels"].as_object().unwrap().len(), 1);
        for (bad, word) in [
            ("target=80,sticky=cookie", "source or none"),
            ("target=80,protocol=http,proxy-protocol=v1", "X-Forwarded-For"),
            ("published=80,target=80,mode=host,protocol=http", "host mode"),
        ] {
            assert!(port(bad).unwrap_err().contains(word), "{bad}");
        }
    }

    #[test]
    fn what_a_removal_means() {
        let entry = json!({ "Protocol": "tcp", "TargetPort": 5000, "PublishedPort": 9002, "PublishMode": "host" });
        let removes = |text: &str| text.parse::<Ports>().unwrap().0[0].removes(&entry);
        assert!(removes("5000") && removes("9002:5000") && removes("target=5000,mode=host"));
        assert!(!removes("5000/udp") && !removes("9000:5000") && !removes("target=5000,mode=ingress"));
    }
}
