import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.http.impl.client.DefaultHttpClient;
import org.apache.olingo.client.api.EdmEnabledODataClient;
import org.apache.olingo.client.api.ODataClient;
import org.apache.olingo.client.api.communication.ODataClientErrorException;
import org.apache.olingo.client.api.communication.ODataServerErrorException;
import org.apache.olingo.client.api.communication.request.cud.UpdateType;
import org.apache.olingo.client.api.domain.ClientEntity;
import org.apache.olingo.client.api.domain.ClientEntitySet;
import org.apache.olingo.client.api.domain.ClientPrimitiveValue;
import org.apache.olingo.client.api.domain.ClientProperty;
import org.apache.olingo.client.api.edm.xml.XMLMetadata;
import org.apache.olingo.client.api.uri.FilterFactory;
import org.apache.olingo.client.api.uri.URIBuilder;
import org.apache.olingo.client.api.uri.URIFilter;
import org.apache.olingo.client.core.ODataClientFactory;
import org.apache.olingo.client.core.http.DefaultHttpClientFactory;
import org.apache.olingo.commons.api.edm.Edm;
import org.apache.olingo.commons.api.edm.EdmEntityType;
import org.apache.olingo.commons.api.edm.FullQualifiedName;
import org.apache.olingo.commons.api.edm.provider.CsdlProperty;
import org.apache.olingo.commons.api.ex.ODataError;
import org.apache.olingo.commons.api.format.ContentType;
import org.apache.olingo.commons.api.http.HttpMethod;
import org.apache.olingo.commons.core.Encoder;

/**
 * What Olingo's client makes of the feed: {root, key, row, patient, rows, rich} on stdin, what it
 * saw on stdout. `rows` are [set, key], one of each table; `rich` is the key of the observation
 * among them.
 */
public final class OlingoClient {
  private static final String SET = "msemr_observations";
  private static final String TEXT = "msemr_codetext";
  private static final String COMPUTED = "Org.OData.Core.V1.Computed";
  private static final String ODD = "Öl's 50% & 1/2 + #3";
  private static final int PRELIMINARY = 935000001;

  /** Knows the model, and a client that finds the types in what it reads, or guesses them. */
  private final EdmEnabledODataClient client;
  private final ODataClient plain = ODataClientFactory.getClient();
  private final String root;
  private final FeedHttp http;
  private final UUID row;
  private final UUID patient;
  private final JsonNode rows;
  private final Map<String, Object> seen = new LinkedHashMap<>();

  private OlingoClient(JsonNode given) {
    root = given.get("root").asText();
    row = UUID.fromString(given.get("row").asText());
    patient = UUID.fromString(given.get("patient").asText());
    rows = given.get("rows");
    http = new FeedHttp(URI.create(root).getAuthority(), given.get("key").asText());
    plain.getConfiguration().setHttpClientFactory(http);
    client = ODataClientFactory.getEdmEnabledClient(root, readMetadata(), null, ContentType.JSON);
    client.getConfiguration().setHttpClientFactory(http);
  }

  /**
   * Reads $metadata without the vocabularies that it refers to. Olingo's requests for metadata load
   * those from their addresses at OASIS, and send the headers that they were given there too: the
   * feed's key among them.
   */
  private Edm readMetadata() {
    try {
      plain.getRetrieveRequestFactory().getMetadataRequest(root).execute();
    } catch (Elsewhere refused) {
      seen.put("elsewhere", refused.getMessage());
    }
    URI address = plain.newURIBuilder(root).appendMetadataSegment().build();
    var asked = plain.getRetrieveRequestFactory().getRawRequest(address);
    asked.setFormat("application/xml");
    XMLMetadata csdl = plain.getDeserializer(ContentType.APPLICATION_XML)
        .toMetadata(asked.execute().getRawResponse());
    var properties = csdl.getSchemas().get(0).getEntityType("msemr_observation").getProperties();
    seen.put("computed", properties.stream()
        .filter(one -> one.getAnnotations().stream().anyMatch(term -> term.getTerm().equals(COMPUTED)))
        .map(CsdlProperty::getName).toList());
    return plain.getReader().readMetadata(csdl.getSchemaByNsOrAlias());
  }

  /** Speaks to the feed alone, so that nobody else gets its key. */
  private static final class FeedHttp extends DefaultHttpClientFactory {
    private final String authority;
    private final String key;

    private FeedHttp(String authority, String key) {
      this.authority = authority;
      this.key = key;
    }

    @Override
    public DefaultHttpClient create(HttpMethod method, URI address) {
      if (!authority.equals(address.getAuthority())) {
        throw new Elsewhere(address);
      }
      DefaultHttpClient client = super.create(method, address);
      client.addRequestInterceptor((request, context) -> request.addHeader("x-functions-key", key));
      return client;
    }
  }

  private static final class Elsewhere extends RuntimeException {
    private Elsewhere(URI address) {
      super(address.toString());
    }
  }

  public static void main(String[] arguments) throws IOException {
    ObjectMapper json = new ObjectMapper();
    JsonNode given = json.readTree(System.in);
    OlingoClient tried = new OlingoClient(given);
    tried.learn();
    tried.readLists();
    tried.readRows();
    tried.write(ContentType.JSON, "minimal");
    tried.write(ContentType.JSON_FULL_METADATA, "full");
    tried.seen.put("sentBack", List.of(
        tried.sendBack(tried.client, ContentType.JSON),
        tried.sendBack(tried.client, ContentType.JSON_FULL_METADATA),
        tried.sendBack(tried.plain, ContentType.JSON),
        tried.sendBack(tried.plain, ContentType.JSON_FULL_METADATA)));
    tried.seen.put("commented", tried.comment(UUID.fromString(given.get("rich").asText())));
    tried.beRefused();
    json.writeValue(System.out, tried.seen);
  }

  /** $metadata and the service document. */
  private void learn() {
    EdmEntityType type = client.getEdm(null).getEntityContainer().getEntitySet(SET).getEntityType();
    seen.put("keys", type.getKeyPredicateNames());
    Map<String, String> types = new LinkedHashMap<>();
    for (String name : type.getPropertyNames()) {
      types.put(name, type.getProperty(name).getType().getName());
    }
    seen.put("types", types);
    seen.put("sets", client.getRetrieveRequestFactory().getServiceDocumentRequest(root).execute()
        .getBody().getEntitySetNames());
  }

  private void readLists() {
    FilterFactory has = client.getFilterFactory();
    URIFilter text = has.eq(TEXT, "weight 3");
    seen.put("equal", where(text));
    seen.put("choice", where(has.eq("msemr_status", PRELIMINARY)));
    seen.put("number", where(has.and(has.ge("msemr_valuetypequantityvalue", new BigDecimal("60.5")),
        has.lt("msemr_valuetypequantityvalue", 61.5))));
    Timestamp since = Timestamp.from(Instant.parse("2024-01-22T00:00:00Z"));
    seen.put("since", where(has.gt("msemr_effectivedate", since)));
    seen.put("lookup", where(has.eq("_msemr_subjectpatient_value", patient)).size());
    seen.put("missing", where(has.eq("msemr_valuetypequantityvalue", null)));
    var arguments = has.getArgFactory();
    seen.put("contains", where(has.and(has.eq("msemr_status", PRELIMINARY),
        has.not(has.match(arguments.contains(arguments.property(TEXT), arguments.literal("0")))))));
    seen.put("endsWith", where(has.or(has.match(arguments.endswith(
        arguments.tolower(arguments.property(TEXT)), arguments.literal("T 4"))), text)));
    seen.put("misquoted", refusal(() -> where(has.eq(TEXT, ODD))));
    seen.put("chosen", texts(list(set().select(TEXT).orderBy("msemr_effectivedate desc").skip(1).top(2))));
    ClientEntitySet counted = list(set().filter(has.eq("msemr_status", PRELIMINARY)).count(true).top(1));
    seen.put("counted", List.of(counted.getCount(), counted.getEntities().size()));
    seen.put("count", client.getRetrieveRequestFactory()
        .getValueRequest(set().appendCountSegment().filter(has.eq("msemr_status", PRELIMINARY)).build())
        .execute().getBody().toString());
    seen.put("pages", pages());
    List<String> every = new ArrayList<>();
    var page = client.getRetrieveRequestFactory().getEntitySetIteratorRequest(set().build())
        .execute().getBody();
    while (page.hasNext()) {
      every.add(text(page.next()));
    }
    seen.put("iterated", every.size());
    seen.put("iteratedNext", page.getNext() != null);
  }

  private List<List<String>> pages() {
    List<List<String>> found = new ArrayList<>();
    var asked = client.getRetrieveRequestFactory().getEntitySetRequest(set().build());
    asked.setPrefer(client.newPreferences().maxPageSize(9));
    ClientEntitySet page = asked.execute().getBody();
    found.add(texts(page));
    while (page.getNext() != null) {
      page = client.getRetrieveRequestFactory().getEntitySetRequest(page.getNext()).execute().getBody();
      found.add(texts(page));
    }
    return found;
  }

  private void readRows() {
    seen.put("byKey", values(read(row)));
    URI chosen = at(row).select(TEXT).build();
    seen.put("onlyText", values(
        client.getRetrieveRequestFactory().getEntityRequest(chosen).execute().getBody()));
    var again = client.getRetrieveRequestFactory().getEntityRequest(at(row).build());
    again.setIfNoneMatch(read(row).getETag());
    seen.put("unchanged", again.execute().getStatusCode());
  }

  /** Creates, changes, sends back and deletes, in one of the two forms in which Olingo writes JSON. */
  private void write(ContentType format, String name) {
    client.getConfiguration().setDefaultPubFormat(format);
    Map<String, Object> found = new LinkedHashMap<>();
    seen.put(name, found);
    ClientEntity fresh = entity();
    set(fresh, TEXT, "Temperature");
    fresh.getProperties().add(client.getObjectFactory().newPrimitiveProperty("msemr_valuetypequantityvalue",
        client.getObjectFactory().newPrimitiveValueBuilder().buildDecimal(new BigDecimal("37.20"))));
    var answer = client.getCUDRequestFactory().getEntityCreateRequest(set().build(), fresh).execute();
    ClientEntity made = answer.getBody();
    found.put("created", answer.getStatusCode());
    found.put("made", values(made));
    found.put("madeType", String.valueOf(made.getTypeName()));
    UUID key = UUID.fromString(values(made).get("msemr_observationid"));

    ClientEntity change = entity();
    set(change, TEXT, ODD);
    found.put("patched", client.getCUDRequestFactory()
        .getEntityUpdateRequest(at(key).build(), UpdateType.PATCH, change).execute().getStatusCode());

    found.put("found", where(client.getFilterFactory().eq(TEXT, quote(ODD))));

    ClientEntity whole = read(key);
    set(whole, TEXT, "Fever");
    whole.setEditLink(at(key).build());
    var sent = client.getCUDRequestFactory().getEntityUpdateRequest(UpdateType.PATCH, whole);
    sent.setIfMatch(whole.getETag());
    sent.setPrefer(client.newPreferences().returnRepresentation());
    var sentAnswer = sent.execute();
    found.put("sentBack", sentAnswer.getStatusCode());
    found.put("changed", values(sentAnswer.getBody()));

    found.put("stale", refusal(() -> {
      var stale = client.getCUDRequestFactory().getEntityUpdateRequest(UpdateType.PATCH, whole);
      stale.setIfMatch(whole.getETag());
      return stale.execute();
    }));
    found.put("replaced", refusal(() -> client.getCUDRequestFactory()
        .getEntityUpdateRequest(at(key).build(), UpdateType.REPLACE, change).execute()));
    found.put("staleDelete", refusal(() -> {
      var stale = client.getCUDRequestFactory().getDeleteRequest(at(key).build());
      stale.setIfMatch(whole.getETag());
      return stale.execute();
    }));
    found.put("deleted", delete(key));
    found.put("gone", refusal(() -> read(key)));

    var quiet = client.getCUDRequestFactory().getEntityCreateRequest(set().build(), fresh);
    quiet.setPrefer(client.newPreferences().returnMinimal());
    var unsaid = quiet.execute();
    String address = unsaid.getHeader("OData-EntityId").iterator().next();
    String id = address.substring(address.lastIndexOf('(') + 1, address.length() - 1);
    found.put("quiet", List.of(unsaid.getStatusCode(), delete(UUID.fromString(id))));
  }

  private int delete(UUID key) {
    return client.getCUDRequestFactory().getDeleteRequest(at(key).build()).execute().getStatusCode();
  }

  /** Reads a row of each table, and sends it back as it was read: nothing is changed by it. */
  private Map<String, Integer> sendBack(ODataClient sender, ContentType format) {
    sender.getConfiguration().setDefaultPubFormat(format);
    Map<String, Integer> found = new LinkedHashMap<>();
    for (JsonNode one : rows) {
      String name = one.get(0).asText();
      UUID key = UUID.fromString(one.get(1).asText());
      URI address = client.newURIBuilder(root).appendEntitySetSegment(name).appendKeySegment(key).build();
      ClientEntity read = sender.getRetrieveRequestFactory().getEntityRequest(address).execute().getBody();
      var sent = sender.getCUDRequestFactory().getEntityUpdateRequest(address, UpdateType.PATCH, read);
      sent.setIfMatch(read.getETag());
      found.put(name, sent.execute().getStatusCode());
    }
    return found;
  }

  /** As Olingo is mostly used: what was read is sent back, with one property changed. */
  private int comment(UUID key) {
    ClientEntity whole = read(key);
    set(whole, "msemr_comment", "Seen");
    var sent = client.getCUDRequestFactory().getEntityUpdateRequest(at(key).build(), UpdateType.PATCH, whole);
    sent.setIfMatch(whole.getETag());
    return sent.execute().getStatusCode();
  }

  private void beRefused() {
    seen.put("malformed", refusal(() -> list(set().filter("msemr_codetext eq"))));
    seen.put("unknown", refusal(() -> list(set().filter(client.getFilterFactory().eq("nothing", 1)))));
    seen.put("expand", refusal(() -> list(set().expand("patient"))));
    seen.put("readOnly", refusal(() -> {
      ClientEntity change = entity();
      set(change, "msemr_components", "x");
      return client.getCUDRequestFactory()
          .getEntityUpdateRequest(at(row).build(), UpdateType.PATCH, change).execute();
    }));
    seen.put("property", refusal(() -> client.getRetrieveRequestFactory()
        .getPropertyRequest(at(row).appendPropertySegment(TEXT).build()).execute()));
    seen.put("atom", refusal(() -> {
      var asked = client.getRetrieveRequestFactory().getEntityRequest(at(row).build());
      asked.setFormat(ContentType.APPLICATION_ATOM_XML);
      return asked.execute();
    }));
  }

  private URIBuilder set() {
    return client.newURIBuilder(root).appendEntitySetSegment(SET);
  }

  private URIBuilder at(UUID key) {
    return set().appendKeySegment(key);
  }

  private ClientEntity read(UUID key) {
    return client.getRetrieveRequestFactory().getEntityRequest(at(key).build()).execute().getBody();
  }

  private ClientEntitySet list(URIBuilder address) {
    return client.getRetrieveRequestFactory().getEntitySetRequest(address.build()).execute().getBody();
  }

  private List<String> where(URIFilter filter) {
    return texts(list(set().filter(filter)));
  }

  /**
   * Olingo writes a text into a filter as it is, decodes the filter, and encodes it again. So the
   * caller has to double the quotes (SQUOTE-in-string of OData's grammar), and to encode the rest.
   */
  private static String quote(String text) {
    return Encoder.encode(text.replace("'", "''"));
  }

  private ClientEntity entity() {
    return client.getObjectFactory().newEntity(new FullQualifiedName("FhirRelay", "msemr_observation"));
  }

  private void set(ClientEntity entity, String name, String value) {
    entity.getProperties().removeIf(one -> one.getName().equals(name));
    entity.getProperties().add(client.getObjectFactory().newPrimitiveProperty(
        name, client.getObjectFactory().newPrimitiveValueBuilder().buildString(value)));
  }

  private static List<String> texts(ClientEntitySet page) {
    return page.getEntities().stream().map(OlingoClient::text).toList();
  }

  private static String text(ClientEntity entity) {
    return entity.getProperty(TEXT).getPrimitiveValue().toString();
  }

  /** By name, with the type that the client has found for it. */
  private static Map<String, String> values(ClientEntity entity) {
    Map<String, String> found = new LinkedHashMap<>();
    for (ClientProperty one : entity.getProperties()) {
      ClientPrimitiveValue value = one.getPrimitiveValue();
      if (value != null && value.toValue() != null) {
        found.put(one.getName(), value.toString());
        found.put(one.getName() + " type", value.getTypeName());
      }
    }
    found.put("etag", entity.getETag());
    return found;
  }

  private interface Asked {
    Object execute();
  }

  private static Map<String, Object> refusal(Asked asked) {
    try {
      Object answered = asked.execute();
      return Map.of("answered", String.valueOf(answered));
    } catch (ODataClientErrorException refused) {
      return tell(refused.getStatusLine().getStatusCode(), refused.getODataError());
    } catch (IllegalArgumentException unable) {
      return Map.of("client", unable.getClass().getSimpleName());
    } catch (ODataServerErrorException refused) {
      return tell(refused);
    }
  }

  /** Olingo gives the body of a 5xx as it came. */
  private static Map<String, Object> tell(ODataServerErrorException refused) {
    try {
      JsonNode error = new ObjectMapper().readTree(refused.getRawResponse()).get("error");
      return Map.of("line", refused.getMessage(), "message", error.get("message").asText());
    } catch (IOException unreadable) {
      throw new UncheckedIOException(unreadable);
    }
  }

  private static Map<String, Object> tell(int status, ODataError error) {
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("status", status);
    found.put("code", error.getCode());
    found.put("message", error.getMessage());
    found.put("target", error.getTarget());
    return found;
  }
}
