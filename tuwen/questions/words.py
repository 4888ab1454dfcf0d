"""The words that questions are made of: one line a concept, its English and Chinese names, and what it goes along with.

Captions of either language are read into the same concepts, so a fact told in English can be asked in Chinese, and a
"no" is held against the captions of both languages. `tags` say what may well be true together: two concepts of one kind
that share a tag are never used to deny one another (a lake and a river, running and jumping, a dog and a wolf).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def words_of(text: str) -> tuple[str, ...]:
    """The words of a list written as one text."""
    return tuple(text.split())


IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "policeman": "policemen",
    "gentleman": "gentlemen", "goose": "geese", "sheep": "sheep", "fish": "fish", "deer": "deer", "wolf": "wolves",
    "scarf": "scarves", "cattle": "cattle", "lady": "ladies",
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """One concept: `key` is also its English name; `en` and `zh` are how captions call it."""

    key: str
    kind: str
    en: tuple[str, ...]
    zh: tuple[str, ...]
    tags: frozenset[str]
    measure: str = "个"
    loose: tuple[str, ...] = ()  # English words that hint at it: enough to keep a "no" away, not to tell it
    object: tuple[str, ...] = ()  # of an action: the verb tells it only with one of these after it


def plural(noun: str) -> str:
    """The English plural of the last word: `dog` -> `dogs`, `child` -> `children`, `bus` -> `buses`."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        last = IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def _parse(kind: str, table: str) -> Iterable[Word]:
    """Lines of `key, other names | Chinese names | tags | measure word | loose hints | objects`."""
    for line in table.strip().splitlines():
        en, zh, tags, measure, loose, objects = ([part.strip() for part in line.split("|")] + [""] * 5)[:6]
        names = tuple(name.strip() for name in en.split(","))
        hints = tuple(name.strip() for name in loose.split(",") if name.strip())
        things = tuple(name.strip() for name in objects.split(",") if name.strip())
        spoken = names[1:] if kind in ("action", "place") else names  # their key is an answer, not a name
        yield Word(names[0], kind, spoken, tuple(zh.split()), frozenset(tags.split()), measure or "个", hints, things)


PEOPLE = """
man, guy, gentleman, businessman, cowboy, fisherman | 男人 男子 男士 男的 大叔 小伙子 爸爸 父亲 老爷爷 老头 | male adult
woman, lady, bride, businesswoman | 女人 女子 女士 女的 美女 新娘 妈妈 母亲 老太太 老奶奶 | female adult
boy | 男孩 小男孩 男孩子 男童 | male young
girl | 女孩 小女孩 小姑娘 女孩子 女童 姑娘 | female young
child, kid, toddler | 孩子 小孩 小孩子 小朋友 儿童 小孩儿 | young
baby, infant | 婴儿 宝宝 小宝宝 | young
person, someone, individual, rider, player, skateboarder, snowboarder, skier, surfer, climber, biker, bicyclist, \
cyclist, hiker, skater, runner, swimmer, motorcyclist, performer, dancer, wrestler, athlete, rollerblader, kayaker, \
racer, worker, clown, soldier, teenager, adult, photographer, musician, goalie, officer, policeman, acrobat, \
friend, student, spectator, onlooker, gymnast, golfer, wakeboarder, stuntman, referee, umpire, bystander, catcher, \
batter, quarterback, model, singer, guitarist, drummer, artist, vendor, chef, driver, passenger, pitcher, coach, \
instructor, trainer, owner, thrower, boxer, fighter, opponent, human, waiter, waitress, jogger, firefighter, \
farmer, vendor, teacher, nurse, doctor, barber, teenager, teen | 人 运动员 球员 选手 老人 大人 工人 行人 \
年轻人 滑雪者 爱好者 赛车手 警察 小丑 舞者 乘客 教练 裁判 主人 艺人 歌手 骑手 摩托车手 老者 黑人 青年 少年 士兵 |
""".replace("\\\n", "")

ANIMALS = """
dog, puppy, pup, doggy, greyhound, poodle, golden retriever, retriever, collie, doberman, terrier, dalmatian, \
german shepherd, labrador, bulldog, pitbull, husky, dachshund, beagle, lab | 狗 小狗 狗狗 犬 | dog | 只 | \
hound, canine, mutt, schnauzer, pug, wolf
cat, kitten | 猫 | cat | 只 | kitty, feline
horse, pony | 马 | hoof | 匹 | bronco, horseback, stallion, jockey, horseman, rodeo, polo, carriage, foal
cow, bull, cattle, calf | 牛 | hoof cattle | 头 | ox, oxen, steer, rodeo, bison, buffalo
sheep, lamb | 羊 | hoof | 只 | goat, goats, ram
goat | 山羊 | hoof | 只 | sheep
elephant | 大象 | elephant | 头
camel | 骆驼 | hoof | 头
bird | 鸟 小鸟 | bird | 只 | eagle, hawk, parrot, crane, heron, chicken, rooster, pelican, owl, penguin, flamingo
duck | 鸭子 | bird | 只 | geese, goose, swan
goose | 鹅 | bird | 只 | duck, swan
swan | 天鹅 | bird | 只 | duck, goose
pigeon, dove | 鸽子 | bird | 只
seagull, gull | 海鸥 | bird | 只
monkey | 猴子 | monkey | 只 | ape, chimp, gorilla
bear | 熊 | bear | 只
tiger | 老虎 | bigcat | 只
lion | 狮子 | bigcat | 只
rabbit, bunny | 兔子 | rodent | 只 | hare
squirrel | 松鼠 | rodent | 只 | chipmunk
deer | 鹿 | hoof | 只
zebra | 斑马 | hoof | 匹
giraffe | 长颈鹿 | hoof | 只
turtle, tortoise | 乌龟 | reptile | 只
snake | 蛇 | reptile | 条
frog | 青蛙 | reptile | 只
pig | 猪 | hoof | 头
""".replace("\\\n", "")

THINGS = """
shirt, t-shirt, tshirt, tee-shirt, tee shirt, t shirt | 衬衫 T恤 上衣 | torso | 件
jacket, coat, parka | 外套 夹克 | torso | 件
sweater | 毛衣 | torso | 件
hoodie, sweatshirt | 卫衣 | torso | 件
jersey | 球衣 球服 | torso | 件
vest | 背心 马甲 | torso | 件
life jacket, life vest | 救生衣 | torso | 件
dress, gown | 裙子 连衣裙 | torso | 条
uniform | 制服 | torso | 套
suit | 西服 西装 | torso | 套
swimsuit, bathing suit, bikini, swim suit | 泳衣 泳装 比基尼 | torso | 件
wetsuit, wet suit | 潜水服 | torso | 件
costume | 服装 | torso | 套
outfit | | torso | 套
skirt | 短裙 | legs | 条
shorts | 短裤 | legs | 条
pants, jeans, trousers | 裤子 | legs | 条
hat, cap, beanie | 帽子 | head | 顶
helmet | 头盔 安全帽 | head | 顶
scarf | 围巾 | neck | 条
headband, bandanna, bandana | 头巾 | head | 条
hair | 头发 | hair | 根
collar | 项圈 | neck | 个
backpack | 背包 书包 | bag | 个
purse, handbag | 手提包 | bag | 个
bag | 袋子 | bag | 个
ball, tennis ball, soccer ball | 球 皮球 小球 | ball | 个
football | 橄榄球 | ball | 个
frisbee, disc | 飞盘 飞碟 | frisbee | 个
toy | 玩具 | toy | 个
balloon | 气球 | balloon | 个
umbrella | 伞 雨伞 | umbrella | 把
flag | 旗子 国旗 | flag | 面
kite | 风筝 | kite | 个
tent | 帐篷 | tent | 个
couch, sofa | 沙发 | couch | 张
chair | 椅子 凳子 | chair | 把
blanket, towel | 毯子 | blanket | 条
surfboard | 冲浪板 | board | 个
snowboard | 滑雪板 | board | 个
kayak, canoe | 皮艇 | boat | 条
boat | 小船 船 | boat | 条
raft | 皮筏 | boat | 条
car | 汽车 小汽车 轿车 | car | 辆
truck | 卡车 | car | 辆
bus | 公交车 | car | 辆
bike, bicycle, mountain bike, bmx bike | 自行车 单车 | bike | 辆
motorcycle, motorbike, dirt bike | 摩托车 | bike | 辆
wall | 墙 | wall | 面
slide | 滑梯 | slide | 个
rope | 绳子 | rope | 根
bucket | 桶 水桶 | bucket | 个
clothes, clothing | 衣服 | torso | 件
"""

COLOURS = """
red | 红色 红 | warm | | crimson, maroon, scarlet, burgundy
orange | 橙色 橘色 橘黄色 | warm gold | | peach
pink | 粉色 粉红色 粉 | warm | | fuchsia, magenta, rose
yellow | 黄色 黄 | gold | | lime
gold, golden | 金色 | gold earth
blond, blonde | 金黄色 | gold earth white
brown | 棕色 褐色 咖啡色 棕 | earth black | | chocolate, brunette, brindle
tan, beige, khaki | 浅棕色 米色 | earth gold white | | cream
white | 白色 白 | white | | cream, pale, ivory
grey, gray, silver | 灰色 灰 银色 | black white blue
black | 黑色 黑 | black | | dark, navy
blue, navy, turquoise | 蓝色 蓝 | blue | | teal, aqua, denim, jean, jeans
green | 绿色 绿 | blue green | | teal, aqua, olive, camouflage, camo, lime, turquoise
purple, violet | 紫色 紫 | blue warm | | lavender, maroon
"""

PLACES = """
in the snow, snow | 雪地里 雪地 雪里 雪中 雪上 雪堆 | snow hill | | snowy, ski, skis, skier, skiing, snowboard, \
snowboarder, snowboarding, sled, sledding, slope, winter, snow-covered, snowball, snowmobile, snowsuit, ice, icy
on the ice, ice | 冰上 冰面 | snow | | skating, rink, hockey, icy
on the beach, beach, seashore | 沙滩上 沙滩 海滩 | water sand rock | | shore, shoreline, coast, sandy, surf, ocean, \
sea, sand, surfer
on the sand, sand | 沙子上 沙子 沙地 | water sand dirt | | sandy, sandbox, dune, desert
in the desert, desert | 沙漠里 沙漠 | sand dirt | | dune
in the ocean, ocean, sea | 海里 海中 大海 海上 海水 | water sand | | waves, wave, surf, surfer, surfing, surfboard
in the pool, pool, swimming pool | 游泳池里 游泳池 泳池 | water | | swimming, diving
in the lake, lake, pond | 湖里 湖中 湖 池塘 | water | | canoe, kayak
in the river, river, stream, creek, rapids | 河里 河中 溪 | water rock | | canoe, kayak, waterfall, raft, rafting
in the water, water | 水里 水中 水上 | water | | wave, waves, surf, surfer, surfing, splash, splashing, splashes, \
puddle, fountain, wet, swim, swims, swimming, boat, wading, sprinkler, canoe, kayak, kayaking, raft, dock, waterfall
on the grass, grass, lawn | 草地上 草地 草坪 草丛 | green | | grassy
in a field, field | | green dirt sport snow | | grassy
in the park, park | 公园里 公园 | green city fun | | bench
in the yard, yard, backyard, garden | 院子里 院子 | green city
in the woods, woods, forest, jungle | 树林里 树林 森林 林中 林间 | green wild rock snow dirt | | wooded, trees
on the street, street, road | 街道上 街道 街上 马路 路上 大街 街头 公路 路边 街边 | road city dirt | | sidewalk, \
pavement, crosswalk, traffic, curb, paved
on the sidewalk, sidewalk, pavement | 人行道上 人行道 | road city | | street
on a path, path, trail, dirt road | 小路上 小路 小道 | road dirt green wild city snow
in the city, city | 城市里 城市 | city road | | urban, street, downtown
in the mud, mud | 泥里 泥水 泥 | dirt water | | muddy
in the dirt, dirt | | dirt sand road sport green
on a mountain, mountain, mountainside, mountaintop | 山上 山顶 山坡 山间 雪山 | wild rock snow hill | | cliff, \
mountains, mountainous
on a hill, hill, hillside | | wild snow green hill dirt rock
on a rock, rock, boulder, rocks | 岩石上 岩石 石头 | wild rock water green | | rocky, cliff, climber, climbing
on a cliff, cliff | 悬崖上 悬崖 | wild rock water
on a stage, stage | 舞台上 舞台 台上 | stage inside city | | concert, onstage
in a restaurant, restaurant, cafe, diner | 餐厅里 餐厅 | inside city
in the kitchen, kitchen | 厨房里 厨房 | inside
on a bed, bed | 床上 | inside
on a couch, couch, sofa | 沙发上 沙发 | inside
on a bench, bench | 长椅上 长椅 长凳 | seat city green
in a chair, chair | 椅子上 椅子 凳子上 | seat inside city green sand
on a swing, swing, tire swing | 秋千上 秋千 | fun green city | | swinging
on a slide, slide, water slide | 滑梯上 滑梯 | fun green city water
on a trampoline, trampoline | 蹦床上 蹦床 | fun green inside
at the playground, playground | 游乐场里 游乐场 | fun green city sand
on a bridge, bridge | 桥上 | road water city wild
on the stairs, stairs, staircase | 台阶上 台阶 楼梯 | city inside | | steps
on a boat, boat | 船上 | water
in a car, car | 车里 | road city
in the air, air, midair | 空中 | any
""".replace("\\\n", "")

ACTIONS = """
running, run, runs, running, ran, sprints, sprinting, jogging, jogs | 奔跑 跑步 跑着 在跑 狂奔 飞奔 跑 | move | | \
chasing, race, racing, races
walking, walk, walks, walking, strolls, strolling | 走路 行走 散步 走着 走在 在走 | move stand
jumping, jump, jumps, jumping, leaps, leaping, leap | 跳跃 跳着 飞跃 腾空 跳起 跃起 跳 | move
swimming, swim, swims, swimming | 游泳 | water | | pool, dive, diving, snorkel
surfing, surf, surfs, surfing | 冲浪 | water stand board | | wave, surfboard, surfer
skiing, ski, skis, skiing | 滑雪 | snow move stand | | skier, snowboarding, slope
snowboarding, snowboard, snowboards, snowboarding | | snow move stand | | skier, snowboarder
skateboarding, skateboard, skateboards, skateboarding | 滑滑板 玩滑板 | move stand board wheels | | skateboarder
climbing, climb, climbs, climbing, scales, scaling | 攀爬 攀岩 爬山 登山 攀登 在爬 | climb move | | climber
sleeping, sleep, sleeps, sleeping | 睡觉 睡着 | lie sit | | asleep, nap, napping, resting
lying down, lie, lies, lying, lay, lays, laying | 躺着 躺在 趴着 趴在 躺 趴 | lie | | sleeping, asleep, resting
sitting, sit, sits, sitting, seated | 坐着 坐在 坐 | sit wheels
standing, stand, stands, standing | 站着 站在 站立 站 | stand
dancing, dance, dances, dancing | 跳舞 | move stand perform
singing, sing, sings, singing | 唱歌 演唱 | stand sit perform | | microphone, singer
eating, eat, eats, eating | 吃东西 吃饭 在吃 | sit stand lie face
drinking, drink, drinks, drinking | 喝水 喝饮料 在喝 | sit stand face
smoking, smoke, smokes, smoking | 抽烟 | sit stand face | | cigarette
reading, read, reads, reading | 看书 读书 看报纸 | sit stand lie
fishing, fish, fishes, fishing | 钓鱼 | sit stand water
cooking, cook, cooks, cooking | 做饭 | stand sit | | grill, chef
smiling, smile, smiles, smiling | 微笑 | sit stand move face any
playing, play, plays, playing | 玩耍 嬉戏 玩着 | any
playing soccer, play, plays, playing | 踢足球 踢球 | sport move stand | | football | soccer
playing football, play, plays, playing | 打橄榄球 | sport move stand | | soccer, rugby | football
playing tennis, play, plays, playing | 打网球 | sport move stand | | racket, racquet | tennis
playing basketball, play, plays, playing | 打篮球 | sport move stand | | hoop | basketball
playing baseball, play, plays, playing | 打棒球 | sport move stand | | bat, softball | baseball
playing volleyball, play, plays, playing | 打排球 | sport move stand water | | | volleyball
playing hockey, play, plays, playing | 打曲棍球 | sport move stand | | | hockey
playing guitar, play, plays, playing | 弹吉他 | sit stand perform | | guitarist, band, musician | guitar, guitars
riding a bike, ride, rides, riding, pedals | 骑自行车 骑着自行车 骑单车 骑山地车 | wheels sit move | | \
biker, cyclist, bicyclist, motorcycle | bike, bicycle, bikes, bicycles
riding a motorcycle, ride, rides, riding, drives, driving | 骑摩托车 骑摩托 骑着摩托 开摩托车 | wheels sit move | | \
biker, motorcyclist, bike, motorbike, motocross | motorcycle, motorcycles, motorbike
riding a horse, ride, rides, riding | 骑马 骑着马 | sit move hoof | | rodeo, horseback, jockey, bull, bronco | horse, \
horses, horseback
riding a skateboard, ride, rides, riding | 踩着滑板 踩滑板 | wheels stand move board | | skateboarder | \
skateboard, skateboards
riding a scooter, ride, rides, riding | 骑滑板车 | wheels stand move | | | scooter
riding a wave, ride, rides, riding | | water stand board | | surfer, surfing | wave, waves
hugging, hug, hugs, hugging, embrace, embraces, embracing | 拥抱 相拥 | sit stand touch face
kissing, kiss, kisses, kissing | 接吻 亲吻 | sit stand touch face
swinging, swings, swinging | 荡秋千 | sit move
sledding, sled, sleds, sledding | 滑雪橇 | snow sit lie move
rowing, row, rows, rowing, paddles, paddling, kayaking, canoeing | 划船 | water sit
crawling, crawl, crawls, crawling | 爬行 | lie move climb
posing, pose, poses, posing | 摆姿势 合照 合影 | any
talking, talk, talks, talking, chats, chatting | 聊天 交谈 谈话 | any
laughing, laugh, laughs, laughing | 大笑 | any
painting, paint, paints, painting | 画画 | sit stand | | artist, drawing, draws
""".replace("\\\n", "")

WORDS: dict[str, dict[str, Word]] = {
    kind: {word.key: word for word in _parse(kind, table)}
    for kind, table in {
        "person": PEOPLE, "animal": ANIMALS, "thing": THINGS, "colour": COLOURS, "place": PLACES, "action": ACTIONS,
    }.items()
}  # fmt: skip
PLURAL_ONLY = {"shorts", "pants", "clothes"}
NO_COUNT = {"hair", "wall", "clothes"}

NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "2": 2, "3": 3, "4": 4, "5": 5, "6": 6,
}  # fmt: skip
NUMBERS_ZH = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
SAY_NUMBER = {value: word for word, value in NUMBERS.items() if word.isalpha()}
SAY_NUMBER_ZH = {1: "一", 2: "两", 3: "三", 4: "四", 5: "五", 6: "六", 7: "七", 8: "八", 9: "九", 10: "十"}
