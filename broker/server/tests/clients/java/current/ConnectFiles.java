//! Connect, standalone and distributed: a file source and a file sink copy a file through a topic.

import java.net.ConnectException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

public final class ConnectFiles {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("standalone", (bootstrap, prefix, base) -> copy(bootstrap, prefix, false));
        phases.put("distributed", (bootstrap, prefix, base) -> copy(bootstrap, prefix, true));
        Expected.main(args, phases);
    }

    /**
     * Copies lines, stops the worker, adds lines, and starts it again: no line twice. The lines are
     * ASCII because the file source counts characters where it means bytes.
     */
    static void copy(String bootstrap, String prefix, boolean isDistributed) throws Exception {
        Path folder = Files.createTempDirectory("millrace-connect");
        Path in = folder.resolve("in.txt");
        Path out = folder.resolve("out.txt");
        StringBuilder lines = new StringBuilder();
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 100; i++) {
                lines.append("round ").append(round).append(" line ").append(i).append("\n");
            }
            Files.writeString(in, lines.toString());
            Process worker = start(bootstrap, prefix, folder, in, out, isDistributed);
            try {
                Expected.soon(() -> Files.exists(out)
                        && Files.readString(out).length() >= lines.length(), 90, "all lines");
            } catch (AssertionError e) {
                throw new AssertionError(Files.readString(folder.resolve("log")), e);
            } finally {
                worker.destroy();
                worker.waitFor();
            }
            Expected.equal(Files.readString(out), lines.toString(), "the copied file");
        }
    }

    static Process start(String bootstrap, String prefix, Path folder, Path in, Path out,
            boolean isDistributed) throws Exception {
        String text = "org.apache.kafka.connect.storage.StringConverter";
        String topic = prefix + "-lines";
        String files = "org.apache.kafka.connect.file.FileStream";
        int port = freePort();
        Path worker = write(folder, "worker", Map.of(
                "bootstrap.servers", bootstrap, "group.id", prefix + "-connect",
                "listeners", "HTTP://127.0.0.1:" + port, "plugin.discovery", "service_load",
                "key.converter", text, "value.converter", text, "offset.flush.interval.ms", "500",
                isDistributed ? "offset.storage.topic" : "offset.storage.file.filename",
                isDistributed ? prefix + "-offsets" : folder.resolve("offsets").toString()),
                isDistributed ? Map.of(
                "config.storage.topic", prefix + "-configs", "config.storage.replication.factor",
                "1", "offset.storage.replication.factor", "1", "status.storage.topic",
                prefix + "-status", "status.storage.replication.factor", "1") : Map.of());
        Map<String, String> source = Map.of("tasks.max", "1", "topic", topic,
                "connector.class", files + "SourceConnector", "file", in.toString());
        Map<String, String> sink = Map.of("tasks.max", "1", "topics", topic,
                "connector.class", files + "SinkConnector", "file", out.toString());
        String main = isDistributed ? "ConnectDistributed" : "ConnectStandalone";
        List<String> command = new ArrayList<>(List.of("java", "-XX:TieredStopAtLevel=1",
                "-Xmx300m", "-cp", System.getProperty("java.class.path"),
                "org.apache.kafka.connect.cli." + main, worker.toString()));
        if (!isDistributed) {
            command.add(write(folder, "source", source, Map.of("name", "source")).toString());
            command.add(write(folder, "sink", sink, Map.of("name", "sink")).toString());
        }
        Process process = new ProcessBuilder(command).redirectErrorStream(true)
                .redirectOutput(folder.resolve("log").toFile()).start();
        if (isDistributed) {
            submit(port, "source", source);
            submit(port, "sink", sink);
        }
        return process;
    }

    static int freePort() throws Exception {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    /** Puts a connector's configuration; the worker may still be starting or rebalancing. */
    static void submit(int port, String name, Map<String, String> config) throws Exception {
        String json = config.entrySet().stream()
                .map(e -> '"' + e.getKey() + "\":\"" + e.getValue() + '"')
                .collect(Collectors.joining(",", "{", "}"));
        URI uri = URI.create("http://127.0.0.1:" + port + "/connectors/" + name + "/config");
        HttpRequest request = HttpRequest.newBuilder(uri).header("Content-Type",
                "application/json").PUT(HttpRequest.BodyPublishers.ofString(json)).build();
        Expected.soon(() -> {
            try {
                int status = HttpClient.newHttpClient()
                        .send(request, HttpResponse.BodyHandlers.ofString()).statusCode();
                return status == 200 || status == 201;
            } catch (ConnectException e) {
                return false;
            }
        }, 90, "the worker takes " + name);
    }

    static Path write(Path folder, String name, Map<String, String> lines,
            Map<String, String> more) throws Exception {
        List<String> text = new ArrayList<>();
        lines.forEach((key, value) -> text.add(key + "=" + value));
        more.forEach((key, value) -> text.add(key + "=" + value));
        return Files.write(folder.resolve(name + ".properties"), text);
    }
}
