import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.Map;

/** Answers on PORT with what it was started with, so that tests can see it. */
public class App {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        String text = "arguments=" + String.join(",", arguments)
            + "\ngreeting=" + environment.get("GREETING")
            + "\nsecret=" + (environment.containsKey("TOKEN") ? environment.get("TOKEN").length() + " characters" : "none")
            + "\nproperty=" + System.getProperty("app.mode")
            + "\nuser=" + System.getProperty("user.name")
            + "\nheap=" + Runtime.getRuntime().maxMemory() / 1048576
            + "\n";
        byte[] body = text.getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(environment.get("PORT"))), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
