//! Kafka's command line tools, each by its own `main`, all in one JVM, their output checked.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.utils.Exit;

public final class Tools {
    static final PrintStream OUT = System.out;
    // One for all runs: what is written in Scala keeps the stream it saw first.
    static final ByteArrayOutputStream PRINTED = new ByteArrayOutputStream();
    static final PrintStream CAPTURE = new PrintStream(PRINTED, true, StandardCharsets.UTF_8);

    /** The first status a tool exited with; a tool may catch what is thrown, and exit again. */
    static Integer exited;

    /** Thrown in place of ending the JVM. */
    static final class Exited extends RuntimeException {}

    static void exit(int status, String message) {
        exited = exited == null ? status : exited;
        throw new Exited();
    }

    /** Runs phases with the tools kept from ending the JVM. */
    static void main(String[] args, Map<String, Expected.Phase> phases) throws Exception {
        Exit.setExitProcedure(Tools::exit);
        Exit.setHaltProcedure(Tools::exit);
        Expected.main(args, phases);
        // Tools leave threads behind.
        Runtime.getRuntime().halt(0);
    }

    public static void main(String[] args) throws Exception {
        Map<String, Expected.Phase> phases = new HashMap<>();
        phases.put("topics", Tools::topics);
        phases.put("console", Tools::console);
        phases.put("console_again", Tools::consoleAgain);
        phases.put("delete", Tools::delete);
        main(args, phases);
    }

    /** What the tool printed, standard error included, after checking its exit status. */
    static String run(int status, String input, String tool, String... args) throws Exception {
        PRINTED.reset();
        exited = null;
        System.setIn(new ByteArrayInputStream(Expected.bytes(input)));
        System.setOut(CAPTURE);
        System.setErr(CAPTURE);
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) {
                throw e;
            }
        } finally {
            System.setOut(OUT);
            System.setErr(OUT);
        }
        String text = PRINTED.toString(StandardCharsets.UTF_8);
        int actual = exited == null ? 0 : exited;
        Expected.equal(actual, status, tool + " printed\n" + text + "\nand its exit status");
        return text;
    }

    static String topicTool(int status, String bootstrap, String... args) throws Exception {
        String[] all = new String[args.length + 2];
        all[0] = "--bootstrap-server";
        all[1] = bootstrap;
        System.arraycopy(args, 0, all, 2, args.length);
        return run(status, "", "org.apache.kafka.tools.TopicCommand", all);
    }

    static void contains(String text, String part, String what) {
        if (!text.contains(part)) {
            throw new AssertionError(what + ": no `" + part + "` in\n" + text);
        }
    }

    static void topics(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-tool";
        contains(topicTool(0, bootstrap, "--create", "--topic", name, "--partitions", "2",
                "--replication-factor", "1", "--config", "retention.ms=3600000"),
                "Created topic " + name + ".", "create");
        contains(topicTool(1, bootstrap, "--create", "--topic", name), "already exists", "again");
        contains(topicTool(0, bootstrap, "--create", "--topic", name, "--if-not-exists"), "", "");
        String list = topicTool(0, bootstrap, "--list");
        Expected.equal(list.lines().filter(name::equals).count(), 1L, "listed");
        String text = topicTool(0, bootstrap, "--describe", "--topic", name);
        contains(text, "PartitionCount: 2", "describe");
        contains(text, "ReplicationFactor: 1", "describe");
        contains(text, "retention.ms=3600000", "describe");
        Expected.equal(text.lines().filter(l -> l.contains("Leader: ")).count(), 2L, "partitions");
        topicTool(0, bootstrap, "--alter", "--topic", name, "--partitions", "3");
        text = topicTool(0, bootstrap, "--describe", "--topic", name);
        contains(text, "PartitionCount: 3", "after alter");
        contains(topicTool(1, bootstrap, "--describe", "--topic", prefix + "-missing"),
                "does not exist", "describe a missing topic");
    }

    static void console(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-tool";
        run(0, "a:first\nb:zweite Zeile é\nc:third\n", "org.apache.kafka.tools.ConsoleProducer",
                "--bootstrap-server", bootstrap, "--topic", name,
                "--property", "parse.key=true", "--property", "key.separator=:",
                "--compression-codec", "zstd");
        consoleAgain(bootstrap, prefix, baseMs);
    }

    static void consoleAgain(String bootstrap, String prefix, long baseMs) throws Exception {
        String text = run(0, "", "org.apache.kafka.tools.consumer.ConsoleConsumer",
                "--bootstrap-server", bootstrap, "--topic", prefix + "-tool", "--from-beginning",
                "--max-messages", "3", "--timeout-ms", "20000",
                "--property", "print.key=true", "--property", "key.separator=:");
        Expected.equal(text.lines().filter(l -> l.startsWith(":", 1)).sorted().toList().toString(),
                "[a:first, b:zweite Zeile é, c:third]", "lines read");
        contains(text, "Processed a total of 3 messages", "the last line");
    }

    static void delete(String bootstrap, String prefix, long baseMs) throws Exception {
        String name = prefix + "-tool";
        topicTool(0, bootstrap, "--delete", "--topic", name);
        Expected.soon(() -> topicTool(0, bootstrap, "--list").lines().noneMatch(name::equals),
                "not listed");
    }
}
