BEGIN TRANSACTION;
CREATE TABLE attempts (
	tenant VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	method VARCHAR NOT NULL, 
	tries INTEGER NOT NULL, 
	last_at FLOAT NOT NULL, 
	used_up INTEGER NOT NULL, 
	PRIMARY KEY (tenant, subject, method), 
	FOREIGN KEY(tenant, subject) REFERENCES users (tenant, subject) ON DELETE CASCADE
);
INSERT INTO "attempts" VALUES('default','9d56d0766029d3f874dfeb47058ebb63','totp',1,1700000010.0,0);
CREATE TABLE backup_codes (
	tenant VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	used_at FLOAT, 
	PRIMARY KEY (tenant, id), 
	FOREIGN KEY(tenant, subject) REFERENCES users (tenant, subject) ON DELETE CASCADE
);
INSERT INTO "backup_codes" VALUES('default','Ylt8geznHNytCRQw','9d56d0766029d3f874dfeb47058ebb63','SXL5-eTItoUQcoI5_swvKrI88dXuHijVskYbEU1GFEQ',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','poToXSPaMzycryZ3','9d56d0766029d3f874dfeb47058ebb63','bZ0rI_aEaBk34epXlSzDi6daxjegMKsIWWXXF8nJP6k',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','9qm5YxZeYL8OZ5OF','9d56d0766029d3f874dfeb47058ebb63','YoWkfdM9PY6ibS3OClHheGFY2TDl-sIaXFtLPv9I3IY',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','61mKPPK2Rt4XwUTq','9d56d0766029d3f874dfeb47058ebb63','GGk9htHcyKWfXv9Y03VE3ITjrZVqjFJMnUHKOlN53YY',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','h2wBZbhlM0JvY-aK','9d56d0766029d3f874dfeb47058ebb63','kWtNRsZwyE5DvSV2Z9AiL8wrQV-f1ueg5lwy_nq7zrs',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','KBuPgEfZ8gbzFf2j','9d56d0766029d3f874dfeb47058ebb63','UOoQ_77NdJEWE6RT9XuFzsutOpE3LstZiq6rwQqo02o',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','HEHK580n-e7BCCd3','9d56d0766029d3f874dfeb47058ebb63','loGDKZigqbGl1c5CJ7cZOttD9hzV2OB4tQ5XJnhRg9M',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','h65RtEtGyzkWsunu','9d56d0766029d3f874dfeb47058ebb63','_KhYQg7rC4-NcTBQorupM0C-agt9cLaoDWSJfoiT7Ho',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','2tKHgsIUiCv5stYW','9d56d0766029d3f874dfeb47058ebb63','fkQIWlLAEWxS_97lkOtLo_5pf7PA_1_fK5ylYdJt9cc',1700000010.0,1707776010.0,NULL);
INSERT INTO "backup_codes" VALUES('default','GsvCKZfrVJcPhYYg','9d56d0766029d3f874dfeb47058ebb63','h207J69l7F4WE7OsORcZrBDnUkiVYzVfBfEaYf5jOGc',1700000010.0,1707776010.0,NULL);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	tenant VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	kind VARCHAR NOT NULL, 
	severity INTEGER NOT NULL, 
	user VARCHAR NOT NULL, 
	session VARCHAR NOT NULL, 
	address VARCHAR NOT NULL, 
	agent VARCHAR NOT NULL, 
	request_id VARCHAR NOT NULL, 
	rule VARCHAR NOT NULL, 
	detail JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "events" VALUES(1,'default',1700000010.0,'user_added',1,'ann','','','','','','{"groups":["admins"]}');
INSERT INTO "events" VALUES(2,'default',1700000010.0,'user_added',1,'bob','','','','','','{"groups":[]}');
INSERT INTO "events" VALUES(3,'default',1700000010.0,'user_disabled',1,'bob','','','','','','{}');
CREATE TABLE factors (
	tenant VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	label VARCHAR NOT NULL, 
	secret BLOB NOT NULL, 
	last_step INTEGER NOT NULL, 
	refused_step INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	created_at FLOAT NOT NULL, 
	last_used_at FLOAT, 
	PRIMARY KEY (tenant, id), 
	FOREIGN KEY(tenant, subject) REFERENCES users (tenant, subject) ON DELETE CASCADE
);
INSERT INTO "factors" VALUES('default','5gox38J2iv6MEuhB','9d56d0766029d3f874dfeb47058ebb63','totp','phone',X'015CA0823B5FA90A5C8E14C84C27035958761964A07D909C4F1FEEF96C1DA80701A9480FEA13C540B6DF9A718AF6D935CE39385DDF4C29C3E5',0,-1,1,1699996410.0,1699996410.0);
INSERT INTO "factors" VALUES('default','Zt-eBGdk4ytdF4Tu','9d56d0766029d3f874dfeb47058ebb63','backup_code','',X'',-1,-1,0,1700000010.0,NULL);
CREATE TABLE kept (
	"key" VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	value BLOB, 
	number INTEGER, 
	expires_at FLOAT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "kept" VALUES('default/kept','default',X'0076616C7565',NULL,2700000010.0);
INSERT INTO "kept" VALUES('default/count','default',NULL,7,2700000010.0);
CREATE TABLE meta (
	name VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('schema',1);
INSERT INTO "meta" VALUES('revision',5);
INSERT INTO "meta" VALUES('sealed_by',3337238919641335086);
CREATE TABLE seen (
	tenant VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	history JSON NOT NULL, 
	updated_at FLOAT NOT NULL, 
	PRIMARY KEY (tenant, subject)
);
CREATE TABLE sessions (
	tenant VARCHAR NOT NULL, 
	id VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	digest BLOB NOT NULL, 
	version INTEGER NOT NULL, 
	created_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	last_seen_at FLOAT NOT NULL, 
	proofs JSON NOT NULL, 
	address VARCHAR NOT NULL, 
	agent VARCHAR NOT NULL, 
	PRIMARY KEY (tenant, id), 
	FOREIGN KEY(tenant, subject) REFERENCES users (tenant, subject) ON DELETE CASCADE, 
	UNIQUE (digest)
);
INSERT INTO "sessions" VALUES('default','kaiXIDupf-FnvM5p','9d56d0766029d3f874dfeb47058ebb63',X'132BCFE860F9BC2DE913FACE0F6307F1FB9B3415B9FE35C197719FD1E4863B07',1,1700000010.0,1700086410.0,1700000010.0,'[["password",1700000010.0]]','192.0.2.1','test');
CREATE TABLE users (
	tenant VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	email VARCHAR NOT NULL, 
	display_name VARCHAR NOT NULL, 
	groups JSON NOT NULL, 
	password VARCHAR NOT NULL, 
	disabled BOOLEAN NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (tenant, subject), 
	UNIQUE (tenant, name)
);
INSERT INTO "users" VALUES('default','9d56d0766029d3f874dfeb47058ebb63','ann','ann@example.com','Ann','["admins"]','$argon2id$v=19$m=19456,t=2,p=1$FliTrjGUsmhGXsYriejtdw$1EVepvDoyDrmnLMT6o5n4ODO0oT6Crt257lyLys+bK8',0,1700000010.0);
INSERT INTO "users" VALUES('default','b2b618cbad9efb8ccf0bed689ddd28b6','bob','','','[]','$argon2id$v=19$m=19456,t=2,p=1$h/LHyGaZvnoR9Pw9tMFcLA$52dHm4PoSR63tEELHdy27I3RDnb1dGhtG7/ZPBVdumo',1,1700000010.0);
CREATE INDEX events_of ON events (tenant, user, at);
CREATE INDEX events_at ON events (tenant, at);
CREATE INDEX kept_until ON kept (expires_at);
CREATE INDEX sessions_of ON sessions (tenant, subject, created_at);
CREATE INDEX factors_of ON factors (tenant, subject);
CREATE INDEX backup_codes_of ON backup_codes (tenant, subject);
COMMIT;
