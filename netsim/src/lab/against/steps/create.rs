//! Services made, scaled and removed.

use super::seconds;
use crate::lab::against::cluster::{Cluster, service};
use crate::lab::against::rows::{self, Figure};
use anyhow::Result;

pub fn create(cluster: &Cluster) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (row, replicas) in [(rows::CREATE_1, 1), (rows::CREATE_5, 5), (rows::CREATE_50, 50)] {
        let before = cluster.cpu_s();
        figures.push((row, seconds(cluster.create(&service("made", cluster.image(), replicas))?)));
        if let (50, Some(before), Some(after)) = (replicas, before, cluster.cpu_s()) {
            figures.push((rows::CONTAINER_CPU, Some((after - before) / 50.0)));
        }
        let removed = cluster.remove("made")?;
        if replicas == 50 {
            figures.push((rows::REMOVE, seconds(removed)));
        }
    }
    Ok(figures)
}

pub fn scale(cluster: &Cluster) -> Result<Vec<Figure>> {
    cluster.create(&service("scaled", cluster.image(), 5))?;
    let to_20 = cluster.scale("scaled", 20)?;
    let to_50 = cluster.scale("scaled", 50)?;
    let began = std::time::Instant::now();
    cluster.scale("scaled", 5)?;
    cluster.until_containers(5)?;
    let down = began.elapsed();
    cluster.remove("scaled")?;
    Ok(vec![(rows::SCALE_20, seconds(to_20)), (rows::SCALE_50, seconds(to_50)), (rows::SCALE_DOWN, seconds(down))])
}
