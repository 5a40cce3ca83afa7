//! `peer service update`: edits of the spec that the service has now. What no flag names stays as it is, fields that
//! we don't know included.

use super::csv::Words;
use super::mounts::{self, Mount};
use super::ports::{Port, Ports, drop_options, label_of};
use super::refs::RefEdits;
use super::settings::{Settings, edit_list, put_label};
use super::values::{self, Ulimit};
use crate::cli::error::CliError;
use crate::cli::json::{Object, child, items, number, put, put_text, put_texts, take_texts, text};
use crate::model::spec::hardware::{self, Device};
use clap::Args;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  peer service update --image nginx:1.29 web
  peer service update --env-add LEVEL=debug --limit-memory 256m web
  peer service update --publish-add 443:8443 --publish-rm 8080 web
  peer service update --update-order start-first --update-failure-action rollback web
  peer service update --force web                 replace every task
  peer service update --rollback web              as: peer service rollback web";

/// Change a service and wait until the change is rolled out
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Update {
    /// The service, by name or id
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Run another image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Instead of the image's CMD
    #[arg(long, value_name = "WORDS")]
    args: Option<Words>,
    /// Replace every task even if nothing changes
    #[arg(long)]
    force: bool,
    /// Go back to the spec before this one
    #[arg(long)]
    pub rollback: bool,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    pub refs: RefEdits,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Lists, entry by entry")]
struct Lists {
    /// Set a variable, as KEY=VALUE, or KEY for its value here
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::env)]
    env_add: Vec<String>,
    /// Unset a variable
    #[arg(long, value_name = "KEY")]
    env_rm: Vec<String>,
    /// Label the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    label_add: Vec<(String, String)>,
    /// Take a label off
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Label the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    container_label_add: Vec<(String, String)>,
    /// Take a label off the containers
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Mount something, or something else at that target
    #[arg(long, value_name = "MOUNT")]
    mount_add: Vec<Mount>,
    /// Unmount what is at that target
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Open a port, as 80:8080[/udp] or published=80,target=8080,mode=host,protocol=http; one that is open gets the
    /// options that are given, or none
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<Ports>,
    /// Close a port, by its target port
    #[arg(long, value_name = "TARGET-PORT")]
    publish_rm: Vec<Ports>,
    /// Only nodes where this holds
    #[arg(long, value_name = "EXPRESSION", value_parser = values::constraint)]
    constraint_add: Vec<String>,
    /// No longer only those
    #[arg(long, value_name = "EXPRESSION")]
    constraint_rm: Vec<String>,
    /// Reserve so many of a resource of the node's own, as gpu=2
    #[arg(long, value_name = "KIND=NUMBER", value_parser = values::generic)]
    generic_resource_add: Vec<(String, u64)>,
    /// No longer reserve any of a kind
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Spread over the values of an attribute
    #[arg(long, value_name = "PREFERENCE", value_parser = values::spread)]
    placement_pref_add: Vec<String>,
    /// No longer spread over them
    #[arg(long, value_name = "PREFERENCE", value_parser = values::spread)]
    placement_pref_rm: Vec<String>,
    /// Add a name server
    #[arg(long, value_name = "IP", value_parser = values::ip)]
    dns_add: Vec<String>,
    /// Remove a name server
    #[arg(long, value_name = "IP")]
    dns_rm: Vec<String>,
    /// Search names in this domain too
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// No longer search in it
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Add an option of the resolver
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove it
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Add a line to the hosts file, as db:10.0.0.9
    #[arg(long, value_name = "HOST:IP", value_parser = values::host)]
    host_add: Vec<String>,
    /// Remove the lines of a host
    #[arg(long, value_name = "HOST")]
    host_rm: Vec<String>,
    /// Set a parameter of the kernel
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::full_pair)]
    sysctl_add: Vec<(String, String)>,
    /// No longer set it
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    /// Set a limit, as nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit_add: Vec<Ulimit>,
    /// No longer set it
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    /// Give the containers a device of the node, as /dev/ttyUSB0[:IN-CONTAINER[:PERMISSIONS]]
    #[arg(long, value_name = "DEVICE")]
    device_add: Vec<Device>,
    /// Take it away, by its path on the node or in the container
    #[arg(long, value_name = "PATH")]
    device_rm: Vec<String>,
    /// Add a group to the container's user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Remove it
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
}

impl Update {
    /// Edits `spec` in place.
    pub fn edit(&self, spec: &mut Object) -> Result<(), CliError> {
        self.lists.labels(spec);
        self.lists.devices(spec);
        let task = child(spec, "TaskTemplate");
        let container = child(task, "ContainerSpec");
        if let Some(image) = &self.image {
            if image.is_empty() {
                return Err(CliError::misuse("--image: the image's name is empty"));
            }
            put(container, "Image", image.as_str());
        }
        if let Some(words) = &self.args {
            put_texts(container, "Args", words.0.clone());
        }
        self.lists.container(container)?;
        self.lists.placement(task);
        self.lists.generic(task);
        self.lists.ports(spec);
        if self.force {
            let forced = number(&Value::Object(spec.clone()), "/TaskTemplate/ForceUpdate").saturating_add(1);
            put(child(spec, "TaskTemplate"), "ForceUpdate", forced);
        }
        self.settings.apply(spec)
    }

    /// `--publish-rm` takes the port in the container: what was probably meant where the published one was given.
    pub fn targets_meant(&self, service: &Value) -> Vec<String> {
        let entries = service.pointer("/Spec/EndpointSpec/Ports").map(items).unwrap_or_default();
        let given = self.lists.publish_rm.iter().flat_map(|ports| &ports.0).filter(|port| port.published == 0);
        let unheeded = given.filter(|port| !entries.iter().any(|entry| port.removes(entry)));
        let meant = unheeded.filter_map(|port| {
            let published = |entry: &&Value| number(entry, "/PublishedPort") == u64::from(port.target);
            let target = number(entries.iter().find(published)?, "/TargetPort");
            Some(format!(
                "hint: --publish-rm takes the port in the container: --publish-rm {target} for what is published on {}",
                port.target
            ))
        });
        meant.collect()
    }
}

impl Lists {
    fn labels(&self, spec: &mut Object) {
        if !self.label_add.is_empty() || !self.label_rm.is_empty() {
            edit_map(child(spec, "Labels"), &self.label_add, &self.label_rm);
        }
    }

    fn devices(&self, spec: &mut Object) {
        if self.device_add.is_empty() && self.device_rm.is_empty() {
            return;
        }
        let label = child(spec, "Labels").get(hardware::DEVICES).and_then(Value::as_str).unwrap_or_default();
        // What can't be read was refused at the edge.
        let mut devices: Vec<Device> = label.split(',').filter_map(|entry| entry.trim().parse().ok()).collect();
        devices.retain(|device| {
            let gone = |path: &String| *path == device.host || *path == device.container;
            let anew = |new: &Device| new.container == device.container;
            !self.device_rm.iter().any(gone) && !self.device_add.iter().any(anew)
        });
        devices.extend(self.device_add.iter().cloned());
        put_label(spec, hardware::DEVICES, &hardware::list(&devices));
    }

    fn container(&self, container: &mut Object) -> Result<(), CliError> {
        self.environment(container);
        if !self.container_label_add.is_empty() || !self.container_label_rm.is_empty() {
            edit_optional_map(container, "Labels", &self.container_label_add, &self.container_label_rm);
        }
        if !self.sysctl_add.is_empty() || !self.sysctl_rm.is_empty() {
            edit_optional_map(container, "Sysctls", &self.sysctl_add, &self.sysctl_rm);
        }
        self.mounts(container)?;
        edit_sorted(container, "Groups", &self.group_add, &self.group_rm);
        self.hosts(container);
        self.dns(container);
        if !self.ulimit_add.is_empty() || !self.ulimit_rm.is_empty() {
            let gone = |entry: &Value| {
                let name = text(entry, "/Name");
                self.ulimit_rm.iter().any(|rm| rm == name) || self.ulimit_add.iter().any(|add| add.name == name)
            };
            edit_list(container, "Ulimits", |list| {
                list.retain(|entry| !gone(entry));
                list.extend(self.ulimit_add.iter().map(Ulimit::json));
                list.sort_by_key(|entry| text(entry, "/Name").to_owned());
            });
        }
        Ok(())
    }

    /// A variable that is set anew keeps its place.
    fn environment(&self, container: &mut Object) {
        if self.env_add.is_empty() && self.env_rm.is_empty() {
            return;
        }
        let name = |env: &str| env.split_once('=').map_or(env, |(name, _)| name).to_owned();
        let mut env = take_texts(container, "Env");
        env.retain(|entry| !self.env_rm.contains(&name(entry)));
        for new in &self.env_add {
            match env.iter_mut().find(|entry| name(entry) == name(new)) {
                Some(entry) => entry.clone_from(new),
                None => env.push(new.clone()),
            }
        }
        put_texts(container, "Env", env);
    }

    fn mounts(&self, container: &mut Object) -> Result<(), CliError> {
        if self.mount_add.is_empty() && self.mount_rm.is_empty() {
            return Ok(());
        }
        for (n, mount) in self.mount_add.iter().enumerate() {
            if self.mount_add.iter().take(n).any(|other| other.target() == mount.target()) {
                return Err(CliError::misuse(format!("--mount-add: two mounts have the target {}", mount.target())));
            }
        }
        edit_list(container, "Mounts", |list| {
            list.retain(|entry| {
                let target = text(entry, "/Target");
                !self.mount_rm.iter().any(|rm| rm == target) && !self.mount_add.iter().any(|add| add.target() == target)
            });
            list.extend(self.mount_add.iter().cloned().map(Value::from));
            mounts::sort(list);
        });
        Ok(())
    }

    /// Entries are "IP host [alias...]"; they go by their host.
    fn hosts(&self, container: &mut Object) {
        if self.host_add.is_empty() && self.host_rm.is_empty() {
            return;
        }
        let gone: Vec<&str> =
            self.host_rm.iter().map(|rm| rm.split_once(':').map_or(rm.as_str(), |(host, _)| host)).collect();
        let mut hosts = take_texts(container, "Hosts");
        hosts.retain(|entry| !entry.split_whitespace().nth(1).is_some_and(|host| gone.contains(&host)));
        for new in &self.host_add {
            if !hosts.contains(new) {
                hosts.push(new.clone());
            }
        }
        put_texts(container, "Hosts", hosts);
    }

    fn dns(&self, container: &mut Object) {
        let lists = [
            ("Nameservers", &self.dns_add, &self.dns_rm),
            ("Search", &self.dns_search_add, &self.dns_search_rm),
            ("Options", &self.dns_option_add, &self.dns_option_rm),
        ];
        for (key, add, rm) in lists {
            if !add.is_empty() || !rm.is_empty() {
                edit_sorted(child(container, "DNSConfig"), key, add, rm);
            }
        }
    }

    fn placement(&self, task: &mut Object) {
        if !self.constraint_add.is_empty() || !self.constraint_rm.is_empty() {
            edit_sorted(child(task, "Placement"), "Constraints", &self.constraint_add, &self.constraint_rm);
        }
        if !self.placement_pref_add.is_empty() || !self.placement_pref_rm.is_empty() {
            edit_list(child(task, "Placement"), "Preferences", |list| {
                list.retain(|entry| {
                    !self.placement_pref_rm.iter().any(|rm| rm == text(entry, "/Spread/SpreadDescriptor"))
                });
                list.extend(self.placement_pref_add.iter().map(|attribute| values::spread_json(attribute)));
            });
        }
    }

    fn generic(&self, task: &mut Object) {
        if self.generic_resource_add.is_empty() && self.generic_resource_rm.is_empty() {
            return;
        }
        edit_list(child(child(task, "Resources"), "Reservations"), "GenericResources", |list| {
            list.retain(|entry| {
                let kind = text(entry, "/DiscreteResourceSpec/Kind");
                !self.generic_resource_rm.iter().any(|rm| rm == kind)
                    && !self.generic_resource_add.iter().any(|(add, _)| add == kind)
            });
            list.extend(self.generic_resource_add.iter().map(values::generic_json));
            list.sort_by_key(|entry| text(entry, "/DiscreteResourceSpec/Kind").to_owned());
        });
    }

    fn ports(&self, spec: &mut Object) {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return;
        }
        let all = |flags: &[Ports]| flags.iter().flat_map(|ports| ports.0.clone()).collect::<Vec<Port>>();
        let (add, rm) = (all(&self.publish_add), all(&self.publish_rm));
        let mut gone = Vec::new();
        edit_list(child(spec, "EndpointSpec"), "Ports", |list| {
            let is_gone = |entry: &Value| rm.iter().any(|port| port.removes(entry));
            gone.extend(list.iter().filter(|entry| is_gone(entry)).map(label_of));
            list.retain(|entry| !is_gone(entry));
            for port in add.iter().map(Port::json) {
                if !list.contains(&port) {
                    list.push(port);
                }
            }
            list.sort_by_key(port_order);
        });
        gone.iter().for_each(|label| drop_options(spec, label));
        add.iter().for_each(|port| port.put_options(spec));
    }
}

/// Docker's order, so that both command lines leave the same list.
fn port_order(port: &Value) -> String {
    let [published, target] = ["/PublishedPort", "/TargetPort"].map(|at| number(port, at));
    format!("{published}:{target}/{}/{}", text(port, "/Protocol"), text(port, "/PublishMode"))
}

fn edit_map(map: &mut Object, add: &[(String, String)], rm: &[String]) {
    map.extend(add.iter().map(|(key, value)| (key.clone(), json!(value))));
    rm.iter().for_each(|key| drop(map.remove(key)));
}

fn edit_optional_map(object: &mut Object, key: &str, add: &[(String, String)], rm: &[String]) {
    edit_map(child(object, key), add, rm);
    if object.get(key).and_then(Value::as_object).is_some_and(Object::is_empty) {
        put_text(object, key, "");
    }
}

/// Sorted, so that the same edits in another order are no change.
fn edit_sorted(object: &mut Object, key: &str, add: &[String], rm: &[String]) {
    if add.is_empty() && rm.is_empty() {
        return;
    }
    let mut list = take_texts(object, key);
    list.extend(add.iter().cloned());
    list.retain(|entry| !rm.contains(entry));
    list.sort();
    list.dedup();
    put_texts(object, key, list);
}
