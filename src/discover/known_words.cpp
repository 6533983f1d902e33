#include "discover/known_words.h"

namespace prm {
namespace {

// Sorted, apart by blanks.
constexpr Bytes kWords =
    " abandoned about abuse accept accepted access account achievement acknowledged action activation"
    " active activity actor add address admin administrator advert affiliate after age agent aggregate"
    " alarm album alert alias all allow allowed allowlist alpha amount analysis analytics and"
    " announcement anonymized anonymous answer any api apikey app application applied appointment"
    " approval apps archive archived are arguments article artist ask asset assignment async at attach"
    " attachment attempt attribute auction audience audit auth authentication author authorization"
    " authors autocomplete availability available avatar average award axes backend backfill background"
    " backlog backoff backpressure backup bad badge bag balance ban banned bannedwords banner bar"
    " barcode based basket batch before benchmark bestseller bestsellers bet beta bid bidder big"
    " billing bin binding bit bitcoin bitmap blacklist blacklisted block blockchain blocked blocking"
    " blocklist blog blue blueprint board body bonus book booking bookmark bootstrap bot bounce"
    " boundary box brand breadcrumb breaker broadcast broker browser bucket budget buffer bulk bull"
    " bundle bus business button buy by cache cached caching calendar callback calls campaign cancel"
    " canceled cancelled candidate capacity captcha capture carrier cart cartridge case cassandra cast"
    " catalog catalogue category cdn celery challenge change changed changelog channel chapter charge"
    " chart chat chatbot chatroom chats check checkin checklist checkout checkouts checkpoint checksum"
    " choice chunk circuit city claim class classification cleanup click client clock cloudflare"
    " cluster cms code codes cohort collaborator collection collections collective collector color"
    " column combination command comment comments commerce commission committed communication community"
    " company compare comparison compensation competition complete completed compliance component"
    " compute concurrency concurrent condition conference config configuration confirm confirmation"
    " confirmed conflict connect connection consent constraint consumer consumption contact content"
    " contest context contract contributor control conversation conversion cookie cooldown coordinates"
    " coordinator copy core corporate correlation count counter country coupon course courses cpu"
    " crawler create created creator credential credentials credit criteria crm cron csrf css csv"
    " cumulative currency current cursor cus custom customer customers customize cycle daily dashboard"
    " data database datacenter dataset date day days db deactivated dead deadletter deadline deal debit"
    " debits debounce debug debugging decision declined decrement decrypted dedup deduplicate"
    " deduplication default defender deferred definition delay delayed delegate delegation delete"
    " deleted delivered delivery demand demo denormalized department dependency deploy deployment"
    " dequeue description design destination detail detection dev developer device devices diagnostics"
    " dialog dict diff difference digest dimension direct directions directory disabled disconnect"
    " discount discovery discussion dispatch dispatched dispatcher display distance distributed"
    " division django dns doc docs doctrine document domain donation down download draft driver due"
    " duplicate duration dynamic each ean edge editor elastic element eligibility eligible email emails"
    " embed embedding embeddings employee empty enable enabled encoding encrypted encryption end"
    " endpoint engagement engine enqueued enrollment enterprise entitlement entitlements entity entries"
    " entry env environment erp error errors escalation escrow estimate evaluation event eventbus"
    " events eventstore eviction exam example exception exchange exclude execute executed execution"
    " executor exercise exp expectations expense experiment expiration expirations expire expired"
    " expires expiring expiry explore export exports expression extension external extract facebook"
    " facet facility factory failed failure fallback family fanout faq favorite favorites favourite"
    " feature featured featureflag features fee feed feedback fetch few field file files filter finance"
    " finding fingerprint finished firewall first flag flags flash fleet flight flow folder follow"
    " followed follower followers following followings for force forecast foreign forgot form format"
    " fortify forum forward framework fraud free frequency friend friends friendship from front"
    " frontend fulfillment full fun function fund funding game games gamma gap gateway gauge general"
    " generated generation generator geo geocode geofence geography geohash geolocation get gift github"
    " global goal google gps grant graph green grid group groups growth guard guest guide guild guilds"
    " handle handler has hash hashes header health healthcheck healthz heap heartbeat help hibernate"
    " hidden hierarchy highlight history hit hits holiday home hook horizon host hot hotel hour hourly"
    " hours house how html http https hub hyperlink hyperloglog icon icons id idempotency idempotent"
    " identification identifier identities identity idle image images img impersonate impersonation"
    " import important impression impressions in inactive inbound inbox incident include income"
    " incoming incomplete increment incremental index indexer indexes individual industry info"
    " information infrastructure ingest ingestion initial initialization inprogress input insert"
    " insight inspection inspector install installation installed instance instant instruction"
    " instrument insurance integration intent interest interface intermediate internal international"
    " interruption interval invalid invalidate invalidated invalidation inventory investigation"
    " investment invitation invite invited invoice ios ip is isolation issue issues item items"
    " iteration java javascript job jobs join journal journey json jwks keep keepalive key keycloak"
    " keys keyspace keyword kind knowledge kombu kpi kube kubernetes label landing lang language"
    " laravel last lastlogin latency latest launch law lay layer layout lead leader leaderboard"
    " leaderboards league lease leave led ledger legacy lending lesson let level levels lib library"
    " licence license like liked likes limit limited limiter limiting limits line link linked links"
    " list listener listing lists lite live load loan loans local locale localhost localization"
    " location lock locked lockout locks log logged login logins logout logs long lookup lost lot low"
    " loyalty lru magiclink mail mailbox mailer mailing main maintainer maintenance manage management"
    " manager manifest manual map mapping marker market marketing marketplace master match matches"
    " material materialized max maximum measure measurement media mediation medium meeting mem member"
    " members membership memcached memory mention mentions menu merchant merge message messages"
    " messenger meta metadata meter method metric metrics micro microservice middleware migrate"
    " migration min mini minimum minute minutes missing mix mobile mod mode model moderation module"
    " moment mongo monitor monitoring month monthly months movie movies multiple music mutation mutex"
    " mysql name names namespace native navigation negotiation network new news newsletter next nginx"
    " nickname nightly node nodejs nonce normal not note notes notice notification notifications"
    " notified now null num number numbers oauth object objects observer occupied occurrence of off"
    " offer office offline offset ok old on onboarding once one online open opened operation operator"
    " ops optimization optimizer option options orchestration orchestrator order orders org"
    " organisation organization origin other otp out outage outbound outbox outgoing output over"
    " overdue overflow override overview own owner owners pack package page pages pagination paid"
    " parameter params parent part partial participant participants participation partition partner"
    " party pass passcode passkey password passwordless patch path patient patients pause paused pay"
    " payload payment payments payout payroll pdf peer pending people per percent performance period"
    " permanent permission permissions persistent person personal personalization personalized phishing"
    " phone photo photos php phpredis physical pickled pid pin ping pinned pipeline pix place"
    " placeholder plan plans platform playback player players playlist plugin point points policies"
    " policy poll polls pool poor pop popular portal portfolio pos position positions post postgres"
    " posts pre precomputed prediction predictions preference preferences preferred prefetch premium"
    " prepared presence present presentation prevention preview previous price prices pricing primary"
    " principal print priority private privilege probability problem procedure process processed"
    " processes processing procurement prod producer product production products profile profiles"
    " profiling program progress progression project projection projects prometheus promo promotion"
    " promotions property proposal prospect protected protection provider provision provisioning proxy"
    " psp public publish published publisher pubsub purchase purchased purge push put python quality"
    " quarantine quarter quarterly query question questionnaire queue queued queueing queues quick quiz"
    " quota quotas quote rabbit race rack rails random range rank ranking rankings rate rated ratelimit"
    " ratelimiter rates rating ratings ratio raw reaction reactions reactivation read reader reading"
    " ready real realm realtime reason reauthentication rebalance rebuild recaptcha receipt received"
    " receiver recent recently recipe recipient recommendation recommendations recommended"
    " reconciliation reconnect record records recovery recurring red redemption redirect redis"
    " reduction ref reference referral referrer refresh refreshtoken refund region regional register"
    " registered registration registrations registry regression reindex rejected related relation"
    " relationship release reliability remaining reminder remote removed rename render renewal repair"
    " replay replication reply report reported reporting reports repository reputation req request"
    " requested requests required res reservation reserved reset resolution resolved resolver resource"
    " resources response resque rest restaurant restriction result results retailer retention retried"
    " retries retrieval retry return returned revalidation revenue review reviews revision revocation"
    " revoked reward rfq risk rlflx role roles room rooms root rotation round route router routes"
    " routing row rpc rpm rss ruby rule rules run running runtime safe saga salary sale sales salt saml"
    " sample sandbox saved scan schedule scheduled scheduler schedules schema school score scores"
    " screen script sdk search searches season secondary seconds secret section security seen segment"
    " segmentation select self seller semaphore send sensitive sensor sent sentiment sentry seo"
    " separator sequence serial serialized series server service services sess session sessions set"
    " setting settings settlement setup severity sha shadow shard share shared sheet shift shipment"
    " shipping shop shopify shopping short shortcut shortener shortlink should shows shutdown sid side"
    " sidekiq sign signal signature signed signin signup similar similarity simple simulation simulator"
    " single singleton site sitemap sites sitewide size sku sla slot slots slow slug sms snapshot soa"
    " social socket software sold solution sorted source spam spec special specification spending"
    " sponsor spool sport spotify spring sql src ssh sso stack stage staging stale stalled stamp"
    " standard start started startup stat state stateful statement states static station statistics"
    " stats status step steps stock stop stopped storage store stored stores story strategy stream"
    " streaming stripe structure structured student studio style sub subdomain subject submission"
    " submitted subscribe subscribed subscriber subscribers subscription subscriptions substitution"
    " success suggestion suggestions sum summary supervisor supplier support surveillance survey"
    " suspended suspension svc swap switch symfony sync synchronization synchronized synonym system"
    " tables tag tagged tags target task tasks tax taxonomy tcp teacher team teams tel telegram"
    " telemetry temp temperature template temporary tenant tenants term terminal terminated terraform"
    " test testimonial testing tests text the theme thing things thread threads threshold throttle"
    " throttled throttling thumbnail thumbnails ticket tickets time timeline timeout timer times"
    " timeseries timestamp timezone tiny tip title tls tmp to today toggle token tokens tombstone tool"
    " top topic topics tos total totals totp touch tour tournament tournaments trace tracking trade"
    " trader traffic training transaction transactions transcript transfer transform transit transition"
    " translation translations transport travel treatment tree trending trends trial trigger trip trips"
    " troubleshooting trust ttl tweet tweets twitter two type types typing udp uid unacked undo unique"
    " uniqueness unit universal unlock unprocessable unprocessed unread unsent unsubscribe unsubscribed"
    " unused unverified up update updated updates upgrade upload uploads upsell upstash uptime uri url"
    " usage usd use used user username users utc util utilization utils utm vaccination val valid"
    " validate validation validator value values var variable variant variation vat vault vector"
    " vehicle velocity vendor verification verified verify version versions vertical via video videos"
    " view viewed viewer viewport views violation vip virtual visibility visit visited visitor visitors"
    " visits vod voice void volume volunteer vote voter votes voucher vpn vulnerability wait waiting"
    " waitlist wallet wallets warehouse warm warning was watch watcher watchlist weather web webauthn"
    " webhook webhooks website websocket week weekly weeks weight welcome whatsapp whitelist widget win"
    " window winner wishlist with withdrawal word wordpress words work worker workers workflow workload"
    " worksheet workspace write writer xml yandex year yearly years yes yesterday young youtube zendesk"
    " zero zip zone zones zset ";

constexpr size_t kLeastPart = 4;  // of two words written as one

bool IsListed(Bytes word) {
  if (word.size() < 2 || word.find(' ') != Bytes::npos) return false;
  // The word that the middle is in decides on which side to go on.
  size_t begin = 0, end = kWords.size() - 1;  // blanks
  while (begin < end) {
    const size_t last = kWords.rfind(' ', begin + (end - begin - 1) / 2);
    const size_t next = kWords.find(' ', last + 1);
    const int order = word.compare(kWords.substr(last + 1, next - last - 1));
    if (order == 0) return true;
    if (order < 0) {
      end = last;
    } else {
      begin = next;
    }
  }
  return false;
}

bool IsOne(Bytes word) {
  return IsListed(word) ||
         (word.size() > 3 && word.back() == 's' && IsListed(word.substr(0, word.size() - 1)));
}

}  // namespace

bool IsKnownWord(Bytes word) {
  if (IsOne(word)) return true;
  for (size_t i = kLeastPart; i + kLeastPart <= word.size(); ++i) {
    if (IsListed(word.substr(0, i)) && IsOne(word.substr(i))) return true;
  }
  return false;
}

}  // namespace prm
