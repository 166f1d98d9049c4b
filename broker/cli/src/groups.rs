//! `millrace groups`: who reads, how far, and from where next.

use crate::offsets::partitions_in;
use crate::print::Table;
use crate::{Cluster, Failure, Printer, Result, nearest, when};
use clap::{ArgGroup, Args};
use millrace_client::membership::{commit_offsets, committed_offsets, read_share};
use millrace_client::{Client, ClientError, Options, To, TopicPartition, refuse};
use millrace_wire::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use millrace_wire::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest,
    OffsetDeleteRequest,
};
use millrace_wire::{Array, ErrorCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "Examples:
  millrace groups --list
  millrace groups --describe --group readers
      how far it has read, how much is left, and who reads what
  millrace groups --describe --all-groups --state
  millrace groups --reset-offsets --group readers --topic orders --to-earliest
      shows what would change; with --execute it does
  millrace groups --reset-offsets --group readers --all-topics --to-datetime 2026-11-21T14:30:00 --execute
  millrace groups --reset-offsets --group readers --topic orders:0,2 --shift-by -10 --execute
  millrace groups --delete --group readers

Offsets of a group change only while it has no members.";

/// Show, move and delete consumer groups (Kafka: kafka-consumer-groups).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("action").required(true))]
#[command(group = ArgGroup::new("which").multiple(false))]
pub struct Groups {
    /// Print the names.
    #[arg(long, group = "action")]
    list: bool,
    /// Print offsets and lag, or --members, or --state.
    #[arg(long, group = "action", requires = "which")]
    describe: bool,
    /// Remove groups without members, and their offsets.
    #[arg(long, group = "action", requires = "which")]
    delete: bool,
    /// Move the offsets of a group without members.
    #[arg(long, group = "action", requires_all = ["group", "to", "what"])]
    reset_offsets: bool,
    /// Forget the offsets of topics.
    #[arg(long, group = "action", requires_all = ["group", "topic"])]
    delete_offsets: bool,
    /// The group; several with commas between them.
    #[arg(long, group = "which", value_delimiter = ',')]
    group: Vec<String>,
    /// Every group.
    #[arg(long, group = "which")]
    all_groups: bool,
    /// Describe: offsets and lag, the default.
    #[arg(long, group = "view")]
    offsets: bool,
    /// Describe: the members.
    #[arg(long, group = "view")]
    members: bool,
    /// Describe or list: the state.
    #[arg(long, group = "view")]
    state: bool,
    /// Members with their partitions.
    #[arg(long, requires = "members")]
    verbose: bool,
    /// A topic, or some of its partitions: orders or orders:0,2; may be repeated.
    #[arg(long, group = "what")]
    topic: Vec<String>,
    /// Every topic of which the group has an offset.
    #[arg(long, group = "what")]
    all_topics: bool,
    /// To the oldest record.
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// To the end.
    #[arg(long, group = "to")]
    to_latest: bool,
    /// To where it is.
    #[arg(long, group = "to")]
    to_current: bool,
    /// To this offset.
    #[arg(long, group = "to")]
    to_offset: Option<i64>,
    /// To the first record at or after a time, such as 2026-11-21T14:30:00 (UTC).
    #[arg(long, group = "to", value_parser = when::datetime)]
    to_datetime: Option<i64>,
    /// To the first record of the last P7DT1H30M5S.
    #[arg(long, group = "to", value_parser = when::duration)]
    by_duration: Option<i64>,
    /// So many records forward, or back if negative.
    #[arg(long, group = "to", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Only show what would change, the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Do it.
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// A group in a list.
struct Listed {
    state: String,
    kind: String,
    protocol_type: String,
}

/// A group and its members.
#[derive(Default)]
struct Described {
    state: String,
    strategy: String,
    members: Vec<Member>,
}

struct Member {
    id: String,
    client_id: String,
    host: String,
    share: Vec<TopicPartition>,
}

impl Groups {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let mut client = self.cluster.connect(Options::default())?;
        if self.list {
            return self.list(&mut client, printer);
        }
        let groups = match self.all_groups {
            true => list(&mut client)?.into_keys().collect(),
            false => self.group.clone(),
        };
        if self.describe {
            return self.describe(&mut client, &groups, printer);
        }
        for group in &groups {
            if self.delete {
                delete(&mut client, group)?;
                if !self.cluster.json {
                    printer.line(format_args!("Deleted group {group}."))?;
                }
            } else if self.delete_offsets {
                self.delete_offsets(&mut client, group)?;
            } else {
                self.reset(&mut client, group, printer)?;
            }
        }
        Ok(())
    }

    fn list(&self, client: &mut Client, printer: &mut Printer<'_>) -> Result {
        let mut table = Table::new(&["GROUP", "STATE", "TYPE", "PROTOCOL-TYPE"]);
        for (name, group) in list(client)? {
            if !(self.state || self.cluster.json) {
                printer.line(name)?;
                continue;
            }
            let Listed { state, kind, protocol_type } = group;
            table.row([json!(name), json!(state), json!(kind), json!(protocol_type)]);
        }
        match self.state || self.cluster.json {
            true => Ok(printer.table(&table, self.cluster.json)?),
            false => Ok(()),
        }
    }

    fn describe(
        &self,
        client: &mut Client,
        groups: &[String],
        printer: &mut Printer<'_>,
    ) -> Result {
        let mut table = Table::new(match (self.members, self.state) {
            (true, _) => &["GROUP", "CONSUMER-ID", "HOST", "CLIENT-ID", "PARTITIONS", "ASSIGNMENT"],
            (_, true) => &["GROUP", "ASSIGNMENT-STRATEGY", "STATE", "MEMBERS"],
            _ => &[
                "GROUP",
                "TOPIC",
                "PARTITION",
                "CURRENT-OFFSET",
                "LOG-END-OFFSET",
                "LAG",
                "CONSUMER-ID",
                "HOST",
                "CLIENT-ID",
            ],
        });
        for group in groups {
            let described = describe(client, group)?;
            if described.members.is_empty() && !self.state {
                printer.note(format_args!("Consumer group '{group}' has no active members."));
            }
            if self.members {
                for member in &described.members {
                    let share = member.share.iter().map(ToString::to_string);
                    let share: Vec<String> = if self.verbose { share.collect() } else { vec![] };
                    table.row([
                        json!(group),
                        json!(member.id),
                        json!(member.host),
                        json!(member.client_id),
                        json!(member.share.len()),
                        json!(share),
                    ]);
                }
            } else if self.state {
                let Described { state, strategy, members } = described;
                table.row([json!(group), json!(strategy), json!(state), json!(members.len())]);
            } else {
                add_offsets(client, group, &described, &mut table)?;
            }
        }
        Ok(printer.table(&table, self.cluster.json)?)
    }

    fn reset(&self, client: &mut Client, group: &str, printer: &mut Printer<'_>) -> Result {
        // A group that is not there yet may be given offsets.
        let state = list(client)?.remove(group).map(|listed| listed.state);
        let is_free = |state: &String| ["Empty", "Dead", ""].contains(&state.as_str());
        if let Some(state) = state.filter(|state| !is_free(state)) {
            return Err(Failure::Usage(format!(
                "group {group} is {state}: its offsets can be moved when it has no members; stop \
                 its consumers first"
            )));
        }
        let committed = committed_offsets(client, group)?;
        let mut wanted: Vec<TopicPartition> = Vec::new();
        if self.all_topics {
            wanted.extend(committed.keys().cloned());
        }
        for text in &self.topic {
            wanted.extend(partitions_in(client, text)?);
        }
        let offsets = self.new_offsets(client, &wanted, &committed, printer)?;
        let mut table = Table::new(&["GROUP", "TOPIC", "PARTITION", "OLD-OFFSET", "NEW-OFFSET"]);
        for (at, offset) in &offsets {
            let old = committed.get(at);
            table.row([
                json!(group),
                json!(at.topic),
                json!(at.partition),
                json!(old),
                json!(offset),
            ]);
        }
        printer.table(&table, self.cluster.json)?;
        match self.execute {
            true => commit_offsets(client, group, None, &offsets)?,
            false => printer.note("Nothing was changed: add --execute to do it."),
        }
        Ok(())
    }

    /// Where each partition would go, within what is there (Kafka: `checkOffsetsRange`).
    fn new_offsets(
        &self,
        client: &mut Client,
        wanted: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, i64>,
        printer: &mut Printer<'_>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let mut at_time = |time: i64| {
            let asked: Vec<_> = wanted.iter().map(|at| (at.clone(), time)).collect();
            client.offsets_at(&asked)
        };
        let (starts, ends) = (at_time(-2)?, at_time(-1)?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ago = self.by_duration.map(|ms| now.as_millis() as i64 - ms);
        let timed = match self.to_datetime.or(ago) {
            Some(time) => at_time(time)?,
            None => BTreeMap::new(),
        };
        let mut offsets = BTreeMap::new();
        for at in wanted {
            let (start, end) = (starts[at].0, ends[at].0);
            let current = committed.get(at).copied();
            let new = match (self.to_offset, self.shift_by) {
                (Some(offset), _) => offset,
                (_, Some(by)) => match current {
                    Some(offset) => offset.saturating_add(by),
                    None => {
                        let text = format!("the group has no offset of {at} to shift");
                        return Err(Failure::Usage(text));
                    }
                },
                _ if self.to_earliest => start,
                _ if self.to_current => current.unwrap_or(end),
                _ => timed.get(at).map(|(offset, _)| *offset).filter(|at| *at >= 0).unwrap_or(end),
            };
            let bounded = new.clamp(start, end.max(start));
            if bounded != new {
                printer.note(format_args!("{at}: {new} is not within {start} and {end}"));
            }
            offsets.insert(at.clone(), bounded);
        }
        Ok(offsets)
    }

    fn delete_offsets(&self, client: &mut Client, group: &str) -> Result {
        let mut topics: BTreeMap<String, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for text in &self.topic {
            for at in partitions_in(client, text)? {
                let partition_index = at.partition;
                let part = OffsetDeleteRequestPartition { partition_index };
                topics.entry(at.topic).or_default().push(part);
            }
        }
        client.retry(|client| {
            let topics = topics.iter().map(|(name, partitions)| OffsetDeleteRequestTopic {
                name,
                partitions: Array::from(&partitions[..]),
            });
            let topics = topics.collect();
            let request = OffsetDeleteRequest { group_id: group, topics };
            let answer = client.call(To::Coordinator(group), &request, 0..=0)?;
            refuse(answer.error_code, None, || format!("group {group}"))?;
            for topic in &answer.topics {
                for part in &topic.partitions {
                    let what = || format!("{}-{}", topic.name, part.partition_index);
                    refuse(part.error_code, None, what)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// All groups of all brokers.
fn list(client: &mut Client) -> Result<BTreeMap<String, Listed>, ClientError> {
    let nodes: Vec<i32> = client.nodes().keys().copied().collect();
    let mut groups = BTreeMap::new();
    for node in nodes {
        client.retry(|client| {
            let answer = client.call(To::Node(node), &ListGroupsRequest::default(), 0..=5)?;
            refuse(answer.error_code, None, || "the list of groups".to_owned())?;
            for group in &answer.groups {
                let (state, kind) = (group.group_state.to_owned(), group.group_type.to_owned());
                let protocol_type = group.protocol_type.to_owned();
                groups.insert(group.group_id.to_owned(), Listed { state, kind, protocol_type });
            }
            Ok(())
        })?;
    }
    Ok(groups)
}

fn describe(client: &mut Client, name: &str) -> Result<Described> {
    let described = client.retry(|client| {
        let groups = Array::from(vec![name]);
        let request = DescribeGroupsRequest { groups, ..Default::default() };
        let answer = client.call(To::Coordinator(name), &request, 0..=6)?;
        let group = answer.groups.first().unwrap_or_default();
        refuse(group.error_code, group.error_message, || format!("group {name}"))?;
        let mut members = Vec::new();
        for member in &group.members {
            // Other protocol types have assignments of their own.
            let share = read_share(member.member_assignment).unwrap_or_default();
            members.push(Member {
                id: member.member_id.to_owned(),
                client_id: member.client_id.to_owned(),
                host: member.client_host.to_owned(),
                share,
            });
        }
        let (state, strategy) = (group.group_state.to_owned(), group.protocol_data.to_owned());
        Ok(Described { state, strategy, members })
    });
    match described {
        Ok(described) if described.state != "Dead" => return Ok(described),
        Err(error) if error.code() != Some(ErrorCode::GROUP_ID_NOT_FOUND) => {
            return Err(error.into());
        }
        _ => {}
    }
    let mut all = list(client)?;
    match all.remove(name) {
        Some(listed) if listed.kind == "consumer" => return Ok(describe_newer(client, name)?),
        // Another kind still: its members are not ours to understand.
        Some(listed) => return Ok(Described { state: listed.state, ..Default::default() }),
        None => {}
    }
    let hint = match nearest(name, all.keys().map(String::as_str)) {
        Some(near) => format!("the nearest name is {near}"),
        None => "`millrace groups --list` shows all".into(),
    };
    Err(Failure::Usage(format!("there is no group {name}; {hint}")))
}

/// A group of the protocol of KIP-848.
fn describe_newer(client: &mut Client, name: &str) -> Result<Described, ClientError> {
    client.retry(|client| {
        let group_ids = Array::from(vec![name]);
        let request = ConsumerGroupDescribeRequest { group_ids, ..Default::default() };
        let answer = client.call(To::Coordinator(name), &request, 0..=1)?;
        let group = answer.groups.first().unwrap_or_default();
        refuse(group.error_code, group.error_message, || format!("group {name}"))?;
        let mut members = Vec::new();
        for member in &group.members {
            let mut share = Vec::new();
            for topic in &member.assignment.topic_partitions {
                let all = topic.partitions.iter();
                share.extend(all.map(|number| TopicPartition::new(topic.topic_name, number)));
            }
            members.push(Member {
                id: member.member_id.to_owned(),
                client_id: member.client_id.to_owned(),
                host: member.client_host.to_owned(),
                share,
            });
        }
        let (state, strategy) = (group.group_state.to_owned(), group.assignor_name.to_owned());
        Ok(Described { state, strategy, members })
    })
}

/// A row for each partition that is read, or was.
fn add_offsets(
    client: &mut Client,
    group: &str,
    described: &Described,
    table: &mut Table,
) -> Result {
    let committed = committed_offsets(client, group)?;
    let mut rows: BTreeMap<TopicPartition, Option<&Member>> =
        committed.keys().map(|at| (at.clone(), None)).collect();
    for member in &described.members {
        rows.extend(member.share.iter().map(|at| (at.clone(), Some(member))));
    }
    // Topics may have been deleted since.
    let topics = client.topics()?;
    let is_there = |at: &TopicPartition| {
        let topic = topics.iter().find(|topic| topic.name == at.topic);
        topic.is_some_and(|topic| (at.partition as usize) < topic.partitions.len())
    };
    let asked: Vec<_> = rows.keys().filter(|at| is_there(at)).map(|at| (at.clone(), -1)).collect();
    let ends = client.offsets_at(&asked)?;
    for (at, member) in rows {
        let (current, end) = (committed.get(&at), ends.get(&at).map(|(offset, _)| *offset));
        let lag = current.zip(end).map(|(current, end)| (end - current).max(0));
        let about = |field: fn(&Member) -> &str| member.map_or(Value::Null, |m| json!(field(m)));
        table.row([
            json!(group),
            json!(at.topic),
            json!(at.partition),
            json!(current),
            json!(end),
            json!(lag),
            about(|member| &member.id),
            about(|member| &member.host),
            about(|member| &member.client_id),
        ]);
    }
    Ok(())
}

fn delete(client: &mut Client, group: &str) -> Result<(), ClientError> {
    client.retry(|client| {
        let groups_names = Array::from(vec![group]);
        let request = DeleteGroupsRequest { groups_names, ..Default::default() };
        let answer = client.call(To::Coordinator(group), &request, 0..=2)?;
        let code = answer.results.first().unwrap_or_default().error_code;
        refuse(code, None, || format!("deleting group {group}"))
    })
}
