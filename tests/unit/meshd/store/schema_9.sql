-- A state file as meshd wrote it at schema version 9, dumped by sqlite3. The specs are shortened.
BEGIN TRANSACTION;
CREATE TABLE call (
        project TEXT NOT NULL, service TEXT NOT NULL, caller TEXT NOT NULL,
        calls INTEGER NOT NULL, uncovered INTEGER NOT NULL, first REAL NOT NULL,
        last REAL NOT NULL, PRIMARY KEY (project, service, caller)
    ) WITHOUT ROWID;
CREATE TABLE decision (
        id INTEGER PRIMARY KEY, project TEXT NOT NULL, service TEXT NOT NULL, at REAL NOT NULL,
        body TEXT NOT NULL
    );
CREATE TABLE event (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, project TEXT NOT NULL,
        service TEXT NOT NULL, replica TEXT NOT NULL, text TEXT NOT NULL, numbers TEXT NOT NULL
    );
CREATE TABLE job (
        id TEXT PRIMARY KEY, project TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        lines TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE override (
        project TEXT NOT NULL, service TEXT NOT NULL, replicas INTEGER NOT NULL,
        until REAL NOT NULL, PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
INSERT INTO "override" VALUES('shop','done',4,99.0);
CREATE TABLE project (
        name TEXT PRIMARY KEY, spec TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL,
        leaving INTEGER NOT NULL DEFAULT 0, plan TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
INSERT INTO "project" VALUES('shop','{"name": "shop", "services": [{"name": "done", "image": "app:2"}, {"name": "halted", "image": "app:2"}, {"name": "paused", "image": "app:2"}, {"name": "rolled-back", "image": "app:2"}, {"name": "rolling", "image": "app:2"}, {"name": "undone", "image": "app:1"}]}','ann',30.0,0,'plan 3');
CREATE TABLE release (
        project TEXT NOT NULL, service TEXT NOT NULL, number INTEGER NOT NULL,
        revision TEXT NOT NULL, previous TEXT NOT NULL, how TEXT NOT NULL, who TEXT NOT NULL,
        at REAL NOT NULL, changed TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT 'rolling',
        cause TEXT NOT NULL DEFAULT '', ended REAL NOT NULL DEFAULT 0,
        tally TEXT NOT NULL DEFAULT '', PRIMARY KEY (project, service, number)
    ) WITHOUT ROWID;
INSERT INTO "release" VALUES('shop','done',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','done',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','done','ready',21.0,'');
INSERT INTO "release" VALUES('shop','halted',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','halted',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','paused','it crashed',22.0,'');
INSERT INTO "release" VALUES('shop','paused',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','paused',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','paused','paused by ann',0.0,'');
INSERT INTO "release" VALUES('shop','rolled-back',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','rolled-back',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','rolled-back','it crashed',24.0,'');
INSERT INTO "release" VALUES('shop','rolling',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','rolling',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','rolling','',0.0,'');
INSERT INTO "release" VALUES('shop','undone',1,'r1','','deploy','ann',10.0,'new service','done','1 of 1 ready',11.0,'');
INSERT INTO "release" VALUES('shop','undone',2,'r2','r1','deploy','ann',20.0,'image app:1 → app:2','rolled-back','bad',26.0,'');
INSERT INTO "release" VALUES('shop','undone',3,'r1','','undo','ann',30.0,'nothing','rolling','',0.0,'');
CREATE TABLE revision (
        project TEXT NOT NULL, service TEXT NOT NULL, fingerprint TEXT NOT NULL,
        spec TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (project, service, fingerprint)
    ) WITHOUT ROWID;
INSERT INTO "revision" VALUES('shop','done','r1','{"name": "done", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','done','r2','{"name": "done", "image": "app:2"}','ann',20.0);
INSERT INTO "revision" VALUES('shop','halted','r1','{"name": "halted", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','halted','r2','{"name": "halted", "image": "app:2"}','ann',20.0);
INSERT INTO "revision" VALUES('shop','paused','r1','{"name": "paused", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','paused','r2','{"name": "paused", "image": "app:2"}','ann',20.0);
INSERT INTO "revision" VALUES('shop','rolled-back','r1','{"name": "rolled-back", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','rolled-back','r2','{"name": "rolled-back", "image": "app:2"}','ann',20.0);
INSERT INTO "revision" VALUES('shop','rolling','r1','{"name": "rolling", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','rolling','r2','{"name": "rolling", "image": "app:2"}','ann',20.0);
INSERT INTO "revision" VALUES('shop','undone','r1','{"name": "undone", "image": "app:1"}','ann',10.0);
INSERT INTO "revision" VALUES('shop','undone','r2','{"name": "undone", "image": "app:2"}','ann',20.0);
CREATE TABLE rollout (
        project TEXT NOT NULL, service TEXT NOT NULL, revision TEXT NOT NULL,
        previous TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, cause TEXT NOT NULL, number INTEGER NOT NULL DEFAULT 0, stage INTEGER NOT NULL DEFAULT 0, stage_since REAL NOT NULL DEFAULT 0, by_hand INTEGER NOT NULL DEFAULT 0, swift INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
INSERT INTO "rollout" VALUES('shop','done','r2','r1','done',21.0,'ready',2,0,20.0,0,0);
INSERT INTO "rollout" VALUES('shop','halted','r2','r1','paused',22.0,'it crashed',2,0,20.0,0,0);
INSERT INTO "rollout" VALUES('shop','paused','r2','r1','paused',23.0,'paused by ann',2,2,22.0,1,0);
INSERT INTO "rollout" VALUES('shop','rolled-back','r2','r1','rolled-back',24.0,'it crashed',2,0,20.0,0,0);
INSERT INTO "rollout" VALUES('shop','rolling','r2','r1','rolling',20.0,'',2,1,25.0,0,0);
INSERT INTO "rollout" VALUES('shop','undone','r1','','rolling',30.0,'',3,0,30.0,0,1);
CREATE TABLE scaling (
        project TEXT NOT NULL, service TEXT NOT NULL, desired INTEGER NOT NULL,
        state TEXT NOT NULL, at REAL NOT NULL, warm INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
INSERT INTO "scaling" VALUES('shop','rolling',3,'{"learned": 1}',31.0,2);
CREATE TABLE schedule (
        project TEXT NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL, looked REAL NOT NULL,
        PRIMARY KEY (project, service, name)
    ) WITHOUT ROWID;
CREATE TABLE sizing (
        project TEXT NOT NULL, service TEXT NOT NULL, day INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (project, service, day)
    ) WITHOUT ROWID;
CREATE TABLE traffic (
        project TEXT NOT NULL, service TEXT NOT NULL, seconds INTEGER NOT NULL,
        at INTEGER NOT NULL, arrivals INTEGER NOT NULL, service_time REAL NOT NULL,
        workers REAL NOT NULL, startup REAL NOT NULL,
        PRIMARY KEY (project, service, seconds, at)
    ) WITHOUT ROWID;
CREATE TABLE trial (
        project TEXT NOT NULL, service TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
INSERT INTO "trial" VALUES('shop','rolling',2,'{"since":21.0,"stage":1,"stage_since":21.0,"stage_requests":0,"seen":22.0,"failures":{"new":10,"new_bad":1,"old":90,"old_bad":0,"strata":1,"expected":0.1,"variance":0.09000000000000002,"low":0,"chances":[0.9000000000000037,0.09999999999999626]},"slow":{"new":10,"new_bad":0,"old":90,"old_bad":0,"strata":0,"expected":0.0,"variance":0.0,"low":0,"chances":[1.0]},"usual":{"30":95},"rung":0,"rung_since":21.0,"rung_requests":0,"looks":[1,0],"stages":1,"ejected":false,"alarm":"","before":null,"odds":1.0}');
CREATE INDEX decision_of ON decision (project, service, at);
COMMIT;
PRAGMA user_version = 9 ;
