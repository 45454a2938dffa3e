//! Which server is dumped: the replica when there is a healthy one, else the primary; and whether
//! it is in a state in which a dump is worth having.

use crate::server::info::Role;
use crate::server::{Code, Control, Endpoint, Facts};

use super::error::chain;
use super::{Error, Request};

/// The server that is dumped.
pub(super) struct Picked {
    pub(super) endpoint: Endpoint,
    pub(super) control: Control,
    pub(super) facts: Facts,
    pub(super) reasons: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Connects to the server that is to be dumped.
pub(super) async fn pick(request: &Request) -> Result<Picked, Error> {
    let mut picked = choose(request).await?;
    let place = picked.endpoint.place();
    if picked.facts.loading {
        return Err(Error::Loading { place });
    }
    if picked.facts.role == Role::Replica && !picked.facts.master_link_up {
        return Err(Error::StaleReplica { place });
    }
    if picked.facts.cluster_enabled {
        picked.warnings.push(format!(
            "{place} is a node of a cluster: the dump holds its own slots alone"
        ));
    }
    if let Some(db) = request.databases.iter().flatten().max().copied() {
        check_database(&mut picked.control, place, db).await?;
    }
    Ok(picked)
}

async fn choose(request: &Request) -> Result<Picked, Error> {
    let mut warnings = Vec::new();
    if let Some(replica) = &request.replica {
        match ask(replica).await {
            Err(error) => warnings.push(format!("the replica is not used: {}", chain(&error))),
            Ok((control, facts)) => match unhealthy(&facts) {
                Some(why) => {
                    warnings.push(format!(
                        "the replica {} is not used: {why}",
                        replica.place()
                    ));
                }
                None => match confirm(request, &facts, &mut warnings).await {
                    Confirmed::No(control, facts) => {
                        warnings.push(format!(
                            "the replica {} is not used: it follows another history than {}",
                            replica.place(),
                            request.endpoint.place()
                        ));
                        return Ok(Picked {
                            endpoint: request.endpoint.clone(),
                            control,
                            facts: *facts,
                            reasons: Vec::new(),
                            warnings,
                        });
                    }
                    Confirmed::Yes => {
                        return Ok(Picked {
                            reasons: vec![format!("from the replica {}", replica.place())],
                            endpoint: replica.clone(),
                            control,
                            facts,
                            warnings,
                        });
                    }
                },
            },
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
    }
    let (control, facts) = ask(&request.endpoint).await?;
    Ok(Picked {
        endpoint: request.endpoint.clone(),
        control,
        facts,
        reasons: Vec::new(),
        warnings,
    })
}

/// Whether a replica is one of the primary that is meant.
enum Confirmed {
    Yes,
    No(Control, Box<Facts>),
}

async fn confirm(request: &Request, replica: &Facts, warnings: &mut Vec<String>) -> Confirmed {
    match ask(&request.endpoint).await {
        // A replica is what there is when the primary is down: that is a reason to have a dump.
        Err(error) => {
            warnings.push(format!(
                "the primary could not confirm that the replica is its own: {}",
                chain(&error)
            ));
            Confirmed::Yes
        }
        Ok((_, facts)) if facts.replid == replica.replid => Confirmed::Yes,
        Ok((control, facts)) => Confirmed::No(control, Box::new(facts)),
    }
}

/// Why a server that should be a replica is no good as one.
fn unhealthy(facts: &Facts) -> Option<&'static str> {
    if facts.role != Role::Replica {
        Some("it is no replica")
    } else if facts.loading {
        Some("it is loading its data set")
    } else if !facts.master_link_up {
        Some("its link to its master is down")
    } else {
        None
    }
}

async fn ask(endpoint: &Endpoint) -> Result<(Control, Facts), Error> {
    let mut control = endpoint.control().await.map_err(|source| {
        let source = Box::new(source);
        if source.is_no_connection() {
            return Error::Connect(source);
        }
        Error::Server {
            place: endpoint.place(),
            doing: "connect",
            source,
        }
    })?;
    let facts = control.info().await.map_err(|source| Error::Server {
        place: endpoint.place(),
        doing: "ask for INFO",
        source: Box::new(source),
    })?;
    Ok((control, facts))
}

/// Whether the highest database that is meant exists. A user that may not SELECT is not asked.
async fn check_database(control: &mut Control, place: String, db: u32) -> Result<(), Error> {
    if db == 0 {
        return Ok(());
    }
    let selected: Result<String, _> = control.call(&["SELECT", &db.to_string()]).await;
    match selected {
        Ok(_) => Ok(()),
        Err(error) => match error.code() {
            Some(Code::Err) => {
                let count = control.config_get("databases").await.ok().flatten();
                Err(Error::NoDatabase {
                    place,
                    db,
                    count: count.and_then(|count| count.parse().ok()),
                    source: Box::new(error),
                })
            }
            Some(Code::NoPerm) => Ok(()),
            _ => Err(Error::Server {
                place,
                doing: "select the database",
                source: Box::new(error),
            }),
        },
    }
}
