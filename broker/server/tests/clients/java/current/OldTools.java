//! The command line tools of Kafka 1.1 and 2.5, as the tutorials of their years use them.

import java.util.HashMap;
import java.util.Map;

public final class OldTools {
    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("topics", OldTools::topics);
        phases.put("console", OldTools::console);
        phases.put("old_producer", OldTools::oldProducer);
        phases.put("groups", OldTools::groups);
        Tools.main(args, phases);
    }

    static String tool(int status, String name, String line) throws Exception {
        return Tools.run(status, "", name, line.split(" "));
    }

    /** 2.5: the first of the two that can create topics without ZooKeeper. */
    static void topics(String bootstrap, String prefix, long baseMs) throws Exception {
        String tool = "kafka.admin.TopicCommand";
        String at = "--bootstrap-server " + bootstrap + " ";
        String name = prefix + "-demo";
        tool(0, tool, at + "--create --replication-factor 1 --partitions 1 --topic " + name
                + " --config max.message.bytes=64000 --config flush.messages=1");
        tool(0, tool, at + "--create --topic " + name + "-default");
        String refused = tool(1, tool, at + "--create --partitions 2 --replication-factor 2"
                + " --topic " + name + "-2");
        Tools.contains(refused, "InvalidReplicationFactorException", "a factor of two");
        String list = tool(0, tool, at + "--list");
        Expected.equal(list.lines().filter(l -> l.startsWith(name)).toList(),
                java.util.List.of(name, name + "-default"), "listed");
        String text = tool(0, tool, at + "--describe --topic " + name);
        for (String part : new String[] {"PartitionCount: 1", "ReplicationFactor: 1", "Isr: ",
            "max.message.bytes=64000", "flush.messages=1"}) {
            Tools.contains(text, part, "describe");
        }
        tool(0, tool, at + "--delete --topic " + name + "-default");
        Expected.soon(() -> tool(0, tool, at + "--list").lines()
                .noneMatch(l -> l.equals(name + "-default")), "not listed");
    }

    /** The tool counts on from one run to the next. */
    static int read;

    static String read(String bootstrap, String topic, int count, String more) throws Exception {
        read += count;
        return tool(0, "kafka.tools.ConsoleConsumer", "--bootstrap-server " + bootstrap
                + " --topic " + topic + " --max-messages " + read + " --timeout-ms 20000" + more);
    }

    static void lines(String text, String... lines) {
        for (String line : lines) {
            Expected.equal(text.lines().filter(line::equals).count(), 1L, line + " in\n" + text);
        }
    }

    /** Lines typed at one end come out of the other, from the beginning. */
    static void console(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-console";
        Tools.run(0, "first\nzweite Zeile é\n第三行\n", "kafka.tools.ConsoleProducer",
                "--broker-list", bootstrap, "--topic", topic);
        lines(read(bootstrap, topic, 3, " --from-beginning"), "first", "zweite Zeile é", "第三行");
    }

    /** 1.1: the producer that was written in Scala, which knows only message sets. */
    static void oldProducer(String bootstrap, String prefix, long baseMs) throws Exception {
        String topic = prefix + "-console";
        String[] codecs = {"none", "gzip", "snappy"};
        for (String codec : codecs) {
            Tools.run(0, "old " + codec + "\n", "kafka.tools.ConsoleProducer", "--old-producer",
                    "--sync", "--broker-list", bootstrap, "--topic", topic,
                    "--compression-codec", codec);
        }
        lines(read(bootstrap, topic, 6, " --from-beginning"), "first", "old none", "old gzip",
                "old snappy");
    }

    /** The group of the last run is listed and has read everything. */
    static void groups(String bootstrap, String prefix, long baseMs) throws Exception {
        String group = prefix + "-console-group";
        read(bootstrap, prefix + "-console", 3, " --from-beginning --group " + group);
        String tool = "kafka.admin.ConsumerGroupCommand";
        String at = "--bootstrap-server " + bootstrap + " ";
        Expected.equal(tool(0, tool, at + "--list").lines().filter(group::equals).count(), 1L,
                "listed");
        String text = tool(0, tool, at + "--describe --group " + group);
        String row = text.lines().filter(l -> l.contains(prefix + "-console ")).findFirst()
                .orElseThrow(() -> new AssertionError("no row in\n" + text));
        Expected.equal(row.replaceAll(" +", " ").contains("-console 0 3 "), true, row);
    }
}
