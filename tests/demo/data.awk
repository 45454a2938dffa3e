# Makes the data of a small web site as commands for `redis-cli --pipe`:
#   db 1: sessions of Pyramid (pickled, as pyramid_redis_sessions keeps them), a page cache, a throttle
#   db 3: Celery: a queue, bindings, unacknowledged messages, task results
#
#   awk -v sessions=100000 -v now="$(date +%s)" -f data.awk | redis-cli --pipe

function command(    i, text) {
  text = "*" n "\r\n"
  for (i = 1; i <= n; i++) text = text "$" length(arg[i]) "\r\n" arg[i] "\r\n"
  printf "%s", text
}
function hex(digits,    text) {
  text = ""
  while (length(text) < digits) text = text sprintf("%08x", int(rand() * 4294967296))
  return substr(text, 1, digits)
}
function set(key, value, ttl) {
  arg[1] = "SET"; arg[2] = key; arg[3] = value; n = 3
  if (ttl) { arg[4] = "EX"; arg[5] = ttl; n = 5 }
  command()
}
function select_db(db) { arg[1] = "SELECT"; arg[2] = db; n = 2; command() }
function uuid() { return hex(8) "-" hex(4) "-" hex(4) "-" hex(4) "-" hex(12) }

BEGIN {
  srand(7)
  select_db(1)
  for (i = 0; i < sessions; i++) {
    # One in fifty began more than a year ago.
    created = now - int(rand() * 86400 * 60) - (i % 50 == 10 ? 86400 * 400 : 0)
    # The pickle of {"managed_dict": {...}, "created": ..., "timeout": ...}, protocol 0.
    pickle = "(dp0\nVmanaged_dict\np1\n(dp2\nVcsrf_token\np3\nV" hex(40) "\np4\nsVuser_id\np5\nI" i \
      "\nsVlast_page\np6\nV/shop/category/" int(rand() * 40) "/item/" int(rand() * 5000) "\np7\nsVcart\np8\n(lp9\nI" \
      int(rand() * 9000) "\naI" int(rand() * 9000) "\naI" int(rand() * 9000) "\naVlocale\np10\nasVflash\np11\n(lp12\nss" \
      "Vcreated\np13\nF" created ".25\nsVtimeout\np14\nI31536000\ns."
    # One in five was left without an expiry, as old clients do.
    set("websauna_session" hex(64), pickle, (i % 5) ? 31536000 - int(rand() * 86400 * 30) : 0)
  }
  # The site's own check at its start: it looks like a session, and is none.
  set("websauna_session_test", "success", 0)
  for (i = 0; i < sessions / 20; i++) {
    body = "<html><head><title>Category " i "</title></head><body>"
    for (j = 0; j < 20; j++) body = body "<div class=\"item\"><a href=\"/item/" int(rand() * 5000) "\">" hex(12) "</a></div>"
    set("cache:page:/shop/category/" i, body "</body></html>", 300 + int(rand() * 3300))
  }
  n = 2; arg[1] = "ZADD"; arg[2] = "throttle_login"
  for (i = 0; i < 300; i++) { arg[++n] = now - i; arg[++n] = now - i "-" hex(8) }
  command()

  select_db(3)
  for (i = 0; i < sessions / 100; i++) {
    id = uuid()
    arg[1] = "LPUSH"; arg[2] = "celery"; n = 3
    arg[3] = "{\"body\": \"W1tdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsfV0=\", \"content-encoding\": \"utf-8\", \"headers\": {\"lang\": \"py\", \"task\": \"shop.tasks.mail\", \"id\": \"" id "\", \"retries\": 0}, \"properties\": {\"delivery_tag\": \"" uuid() "\"}}"
    command()
    # One in four is kept for ever: result_expires was None for a while.
    set("celery-task-meta-" uuid(), "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, \"children\": [], \"date_done\": \"2026-11-22T10:00:00.000000+00:00\", \"task_id\": \"" id "\"}", (i % 4) ? 86400 - int(rand() * 3600) : 0)
  }
  arg[1] = "SADD"; arg[2] = "_kombu.binding.celery"; arg[3] = "celery\006\026\006\026celery"; n = 3; command()
  for (i = 0; i < 20; i++) {
    id = uuid()
    arg[1] = "HSET"; arg[2] = "unacked"; arg[3] = id; arg[4] = "[{\"body\": \"W10=\"}, \"\", \"celery\"]"; n = 4; command()
    arg[1] = "ZADD"; arg[2] = "unacked_index"; arg[3] = now - i; arg[4] = id; n = 4; command()
  }
}
