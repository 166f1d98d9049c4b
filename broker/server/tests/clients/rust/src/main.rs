//! The crates rdkafka (librdkafka) and rskafka (a codec of its own) against the broker.

mod expected;
mod rdkafka_phases;
mod rskafka_phases;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, bootstrap, prefix, base_ms, phases @ ..] = arguments.as_slice() else {
        panic!("usage: PROGRAM BOOTSTRAP PREFIX BASE_MS PHASE...")
    };
    let base_ms = base_ms.parse().expect("BASE_MS is a number");
    let topic = format!("{prefix}-codecs");
    for phase in phases {
        match phase.as_str() {
            "rdkafka_write" => rdkafka_phases::write(bootstrap, &topic, base_ms).await,
            "rdkafka_read" => rdkafka_phases::read(bootstrap, &topic, base_ms).await,
            "rdkafka_group" => rdkafka_phases::group(bootstrap, &topic).await,
            "rskafka_write" => rskafka_phases::write(bootstrap, &topic, base_ms).await,
            "rskafka_read" => rskafka_phases::read(bootstrap, &topic, base_ms).await,
            "rskafka_delete" => rskafka_phases::delete(bootstrap, &topic).await,
            other => panic!("no phase {other}"),
        }
        println!("passed: {phase}");
    }
}
